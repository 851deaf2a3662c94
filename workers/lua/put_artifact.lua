-- Stores a picture, or keeps one that is there for longer. KEYS: its hash; index of pictures by expiry, bytes in all.
-- ARGV: id, tenant, user, media type, size, bytes, 1 if the bytes lie here, now in s, seconds to keep it, most bytes in
-- all, beginning of every hash's name. Beyond the most, the oldest pictures go.
local hash, index, total = KEYS[1], KEYS[2], KEYS[3]
local id, size, here, now, ttl = ARGV[1], tonumber(ARGV[5]), ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local known = redis.call('EXISTS', hash) == 1
if not known then
  redis.call('HSET', hash, 'tenant', ARGV[2], 'user', ARGV[3], 'media_type', ARGV[4], 'size', size)
  if here then
    redis.call('HSET', hash, 'data', ARGV[6])
  end
end
redis.call('EXPIRE', hash, ttl)
if not here then
  return 1
end

local sum = tonumber(redis.call('GET', total) or 0)
local function forget(member)
  redis.call('ZREM', index, member)
  sum = sum - tonumber(string.match(member, ':(%d+)$'))
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now, 'LIMIT', 0, 1000)) do
  forget(member)
end
local own = id .. ':' .. redis.call('HGET', hash, 'size')
if redis.call('ZADD', index, now + ttl, own) == 1 then
  sum = sum + tonumber(string.match(own, ':(%d+)$'))
end
while sum > tonumber(ARGV[10]) do
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  if not oldest or oldest == own then
    break
  end
  redis.call('DEL', ARGV[11] .. string.match(oldest, '^(.*):'))
  forget(oldest)
end
redis.call('SET', total, string.format('%.0f', sum), 'EX', ttl)
redis.call('EXPIRE', index, ttl)
return 1
