-- Decides whether a job may enter: not seen before, and within every limit. Charges all limits or none.
-- Generic cell rate algorithm, ATM Forum Traffic Management Specification 4.0 (1996), virtual scheduling form: a
-- limit's state is its theoretical arrival time (TAT); a request that would push it further than the window ahead of
-- now is refused. All times are microseconds of the server's clock.
-- A budget is held against an account: what it has used and what jobs in flight have reserved.
-- KEYS: the admission record, one key a limit, one account a budget. ARGV: seconds to keep the record; for each limit
-- what the job costs and the window (the whole burst), in microseconds; for each budget its ceiling and what the job may
-- take, in microseconds of GPU time, and seconds to keep the account at least; the set of those admitted lately, the job.
-- Returns {1} admitted, {0} seen before, {-1, limit, retry after in us (-1: never)} or {-2, budget, us left} refused.
-- What costs time here is the number of commands; times of expiry are absolute and written as text, because the
-- server would otherwise rewrite each command for its log, and would print numbers by way of floating point.
local found = redis.call('MGET', unpack(KEYS))
if found[1] then
  return { 0 }
end

local budgets = #ARGV - 3 - 2 * (#KEYS - 1)
local limits = #KEYS - 1 - budgets
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function keep(key, tat)
  local text = string.format('%d', tat)
  redis.call('SET', key, text, 'PXAT', string.format('%d', math.ceil(tat / 1000) + 1))
  return text
end

local blocking, longest, tats = nil, 0, {}
for i = 2, limits + 1 do
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

local function account(i) -- its key, ceiling, what the job may take, and seconds to keep it
  local at = 1 + 2 * limits + 3 * (i - 1)
  return KEYS[1 + limits + i], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
end

for i = 1, budgets do
  local key, ceiling, cost = account(i)
  local state = redis.call('HMGET', key, 'gpu_us', 'reserved_us', 'extra_us')
  local left = ceiling + (state[3] or 0) - (state[1] or 0) - (state[2] or 0)
  if cost > left then
    return { -2, i, left }
  end
end

local record = ''
for i = 2, limits + 1 do
  record = record .. KEYS[i] .. ' ' .. ARGV[2 * i - 2] .. ' ' .. keep(KEYS[i], tats[i]) .. '\n'
end
for i = 1, budgets do
  local key, _, cost, ttl_s = account(i)
  redis.call('HINCRBY', key, 'reserved_us', string.format('%d', cost))
  if redis.call('TTL', key) < ttl_s then
    redis.call('EXPIRE', key, string.format('%d', ttl_s))
  end
  record = record .. key .. ' ' .. string.format('%d', cost) .. ' reserved\n'
end
redis.call('SET', KEYS[1], record, 'EX', ARGV[1])
redis.call('ZADD', ARGV[#ARGV - 1], clock[1], ARGV[#ARGV]) -- should it never reach the queue, it gets its charges back
return { 1 }
