-- Decides whether a job may enter: not seen before, and within every limit. Charges all limits or none.
-- Generic cell rate algorithm, ATM Forum Traffic Management Specification 4.0 (1996), virtual scheduling form: a
-- limit's state is its theoretical arrival time (TAT); a request that would push it further than the window ahead of
-- now is refused. All times are microseconds of the server's clock.
-- KEYS: the admission record, then one key a limit. ARGV: seconds to keep the record, then for each limit what the
-- job costs and the window (the whole burst), in microseconds.
-- Returns {1} admitted, {0} seen before, {-1, limit, retry after in us (-1: never)} refused.
local found = redis.call('MGET', unpack(KEYS))
if found[1] then
  return { 0 }
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local blocking, longest, tats = nil, 0, {}
for i = 2, #KEYS do
  local charge, window = tonumber(ARGV[2 * i - 2]), tonumber(ARGV[2 * i - 1])
  if charge > window then
    return { -1, i - 1, -1 }
  end
  local tat = tonumber(found[i] or 0)
  if tat < now then
    tat = now
  elseif tat > now + window then -- only after the clock went back, and that shall lock nobody out
    tat = now + window
    redis.call('SET', KEYS[i], string.format('%.0f', tat), 'PX', math.ceil(window / 1000) + 1)
  end
  tats[i] = tat + charge
  local wait = tats[i] - window - now
  if wait > longest then
    blocking, longest = i, wait
  end
end
if blocking then
  return { -1, blocking - 1, longest }
end

local record = {}
for i = 2, #KEYS do
  local tat = string.format('%.0f', tats[i])
  redis.call('SET', KEYS[i], tat, 'PX', math.ceil((tats[i] - now) / 1000) + 1)
  record[i - 1] = KEYS[i] .. ' ' .. ARGV[2 * i - 2] .. ' ' .. tat
end
redis.call('SET', KEYS[1], table.concat(record, '\n'), 'EX', ARGV[1])
return { 1 }
