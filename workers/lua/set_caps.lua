-- ARGV[3], ARGV[4]: most jobs in flight of one tenant, and of one user within a tenant.
redis.call('HSET', state, 'tenant_cap', ARGV[3], 'user_cap', ARGV[4])
for _, tenant in ipairs(redis.call('ZRANGE', capped, 0, -1)) do
  if number_in(in_flight, tenant, 0) < tonumber(ARGV[3]) then
    uncap(tenant)
  end
end
for _, member in ipairs(redis.call('SRANDMEMBER', parked, 256)) do -- the rest follows at the next maintenance
  for _ = number_in(in_flight, member, 0) + 1, math.min(tonumber(ARGV[4]), 256) do
    if not unpark(member) then
      break
    end
  end
end
