-- Deletes a picture. KEYS: its hash; index of pictures by expiry, bytes in all. ARGV: id. Returns 1 if there was one.
local size = redis.call('HGET', KEYS[1], 'size')
if not size then
  return 0
end
redis.call('DEL', KEYS[1])
if redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. size) == 1 then
  redis.call('DECRBY', KEYS[3], size)
end
return 1
