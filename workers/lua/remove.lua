-- ARGV[3]: a queued job that shall not run. Returns how many times it was listed.
local id = ARGV[3]
local listed = redis.call('LREM', inbox, 0, id)
redis.call('SREM', heads, id)
local user = redis.call('HGET', jobs .. id, 'user') or ''
local member = tenant_of(id) .. ' ' .. user
local sorted = redis.call('LREM', lane_of(tenant_of(id)), 0, id)
if redis.call('SISMEMBER', parked, member) == 1 then
  sorted = sorted + redis.call('LREM', parking_of(member), 0, id)
  if redis.call('EXISTS', parking_of(member)) == 0 then
    redis.call('SREM', parked, member)
  end
end
if sorted > 0 then
  redis.call('HINCRBY', state, 'queued', -sorted)
end
return listed + sorted
