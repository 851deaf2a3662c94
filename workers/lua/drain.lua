-- Takes up to ARGV[3] queued ids off the queue, wherever they lie, and deletes their jobs if ARGV[4] is 1.
-- ARGV[5]: prefix of rq's results. Returns {ids taken, 1 if there may be more}.
local left, taken, sorted = tonumber(ARGV[3]), {}, 0

local function take(key)
  local ids = left > 0 and redis.call('LPOP', key, left) or {}
  for _, id in ipairs(ids) do
    taken[#taken + 1] = id
  end
  left = left - #ids
  return #ids
end

take(inbox)
for _, key in ipairs({ ring, capped }) do
  for _, tenant in ipairs(left > 0 and redis.call('ZRANGE', key, 0, left - 1) or {}) do
    sorted = sorted + take(lane_of(tenant))
    if redis.call('EXISTS', lane_of(tenant)) == 0 then
      redis.call('ZADD', finish, redis.call('ZSCORE', key, tenant), tenant)
      redis.call('ZREM', key, tenant)
    end
  end
end
for _, member in ipairs(left > 0 and redis.call('SRANDMEMBER', parked, left) or {}) do
  sorted = sorted + take(parking_of(member))
  if redis.call('EXISTS', parking_of(member)) == 0 then
    redis.call('SREM', parked, member)
  end
end
if sorted > 0 then
  redis.call('HINCRBY', state, 'queued', -sorted)
end
for _, id in ipairs(taken) do
  redis.call('SREM', heads, id)
  if ARGV[4] == '1' then
    redis.call('DEL', jobs .. id, jobs .. id .. ':dependents', ARGV[5] .. id)
  end
end
return { #taken, redis.call('EXISTS', inbox, ring, capped, parked) > 0 and 1 or 0 }
