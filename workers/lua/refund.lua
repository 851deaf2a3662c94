-- Gives back what a job was charged and what it has reserved, once. KEYS[1]: the admission record. ARGV[1]: 1 to forget the
-- job altogether, 2 to give back only what it has reserved of budgets.
-- Time has given back part of the charge already: a TAT drains in the order in which it was charged, so what is left
-- of this charge is what lies between now and the TAT it led to. An earlier refund of an older charge makes that a
-- little too much; the excess stays within one job's cost.
local record = redis.call('GET', KEYS[1])
if not record then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local refunded = 0
for key, charge in string.gmatch(record, '(%S+) (%d+) reserved') do
  refunded = refunded + 1
  if redis.call('EXISTS', key) == 1 then
    redis.call('HINCRBY', key, 'reserved_us', -charge)
  end
end
if ARGV[1] == '2' then
  redis.call('SET', KEYS[1], (string.gsub(record, '%S+ %d+ reserved\n', '')), 'KEEPTTL')
  return refunded
end
for key, charge, reached in string.gmatch(record, '(%S+) (%d+) (%d+)') do
  refunded = refunded + 1
  local back = math.min(tonumber(charge), tonumber(reached) - now)
  local tat = tonumber(redis.call('GET', key) or 0)
  if back > 0 and tat > now then
    local left_ms = math.ceil((tat - back - now) / 1000)
    if left_ms <= 0 then
      redis.call('DEL', key)
    else
      redis.call('SET', key, string.format('%.0f', tat - back), 'PX', left_ms + 1)
    end
  end
end
if ARGV[1] == '1' then
  redis.call('DEL', KEYS[1])
elseif refunded > 0 then
  redis.call('SET', KEYS[1], '', 'KEEPTTL')
end
return refunded
