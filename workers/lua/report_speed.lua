-- KEYS[1]: speed of a kind. ARGV: worker, its slots, seconds one job occupies a slot, seconds a report stays valid.
local now, valid_s = tonumber(redis.call('TIME')[1]), tonumber(ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. now)
local reports = redis.call('HGETALL', KEYS[1])
for i = 1, #reports, 2 do
  local at = tonumber(string.match(reports[i + 1], '(%d+)$') or 0)
  if math.abs(now - at) > valid_s then
    redis.call('HDEL', KEYS[1], reports[i])
  end
end
redis.call('EXPIRE', KEYS[1], 2 * valid_s)
