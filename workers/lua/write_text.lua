-- Writes a piece of an answer at its place. KEYS[1]: the text. ARGV: byte offset, bytes, seconds to keep the text.
-- Returns 1, or 0 if the text there is shorter than the offset: the hole would be read as part of the answer.
if redis.call('STRLEN', KEYS[1]) < tonumber(ARGV[1]) then
  return 0
end
redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
