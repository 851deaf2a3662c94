-- Decides whether a job may enter: not seen before, and within every limit. Charges all limits or none.
-- Generic cell rate algorithm, ATM Forum Traffic Management Specification 4.0 (1996), virtual scheduling form: a
-- limit's state is its theoretical arrival time (TAT); a request that would push it further than the window ahead of
-- now is refused. All times are microseconds of the server's clock.
-- KEYS: the admission record, then one key a limit. ARGV: seconds to keep the record, then for each limit what the
-- job costs and the window (the whole burst), in microseconds.
-- Returns {1} admitted, {0} seen before, {-1, limit, retry after in us (-1: never)} refused.
-- What costs time here is the number of commands; times of expiry are absolute and written as text, because the
-- server would otherwise rewrite each command for its log, and would print numbers by way of floating point.
local found = redis.call('MGET', unpack(KEYS))
if found[1] then
  return { 0 }
end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function keep(key, tat)
  local text = string.format('%d', tat)
  redis.call('SET', key, text, 'PXAT', string.format('%d', math.ceil(tat / 1000) + 1))
  return text
end

local blocking, longest, tats = nil, 0, {}
for i = 2, #KEYS do
  local charge, window = tonumber(ARGV[2 * i - 2]), tonumber(ARGV[2 * i - 1])
  if charge > window then
    return { -1, i - 1, -1 }
  end
  local tat = tonumber(found[i]) or now
  if tat < now then
    tat = now
  elseif tat > now + window then -- only after the clock went back, and that shall lock nobody out
    tat = now + window
    keep(KEYS[i], tat)
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

local record = ''
for i = 2, #KEYS do
  record = record .. KEYS[i] .. ' ' .. ARGV[2 * i - 2] .. ' ' .. keep(KEYS[i], tats[i]) .. '\n'
end
redis.call('SET', KEYS[1], record, 'EX', ARGV[1])
return { 1 }
