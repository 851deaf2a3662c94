-- How many jobs will start before a queued one, by replaying the fair order on paper.
-- KEYS[3]: measured speed of the kind. ARGV[3]: the job, ARGV[4]: tenants whose jobs' costs are read, ARGV[5]: jobs
-- read of each, ARGV[6]: further tenants whose lanes' lengths are read, ARGV[7]: seconds a report of speed is valid.
-- Returns {jobs ahead (-1: not queued), jobs per second as text ('0': unknown)}.
local id, most_costs, depth, most_lengths = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local read_gpu_s, read_jobs = 0, 0

local function speed()
  local now, per_s = now_s(), 0
  for _, report in ipairs(redis.call('HVALS', KEYS[3])) do
    local slots, seconds, at = string.match(report, '^(%S+) (%S+) (%S+)$')
    if slots and math.abs(now - tonumber(at)) <= tonumber(ARGV[7]) then
      per_s = per_s + tonumber(slots) / tonumber(seconds)
    end
  end
  return string.format('%.9g', per_s)
end

local function cost_of(other)
  local cost = tonumber(redis.call('HGET', jobs .. other, 'cost_gpu_s') or 1)
  cost = (cost and cost > 0 and cost <= 86400) and cost or 1
  read_gpu_s, read_jobs = read_gpu_s + cost, read_jobs + 1
  return cost
end

local function mean_gpu_s()
  return read_jobs > 0 and read_gpu_s / read_jobs or 1
end

-- GPU-seconds of the first n jobs of a lane: the first ones read, the rest at their mean.
local function cost_of_first(lane, n)
  local total, read = 0, math.min(n, depth)
  for _, other in ipairs(read > 0 and redis.call('LRANGE', lane, 0, read - 1) or {}) do
    total = total + cost_of(other)
  end
  return (read > 0 and n > read) and total * n / read or total
end

-- Jobs of another lane that start before a gap of so many GPU-seconds is filled.
local function jobs_within(lane, gap_gpu_s, wins_tie)
  local number, total = 0, 0
  local ids = redis.call('LRANGE', lane, 0, depth - 1)
  for _, other in ipairs(ids) do
    if total > gap_gpu_s or (total == gap_gpu_s and not wins_tie) then
      return number
    end
    number, total = number + 1, total + cost_of(other)
  end
  if #ids < depth or total >= gap_gpu_s then
    return number
  end
  local mean = total / number
  return math.min(redis.call('LLEN', lane), number + math.ceil((gap_gpu_s - total) / mean))
end

local function jobs_ahead()
  if redis.call('HGET', jobs .. id, 'status') ~= 'queued' then
    return -1
  elseif redis.call('HEXISTS', running, id) == 1 then
    return 0
  end
  local tenant = tenant_of(id)
  local place = redis.call('LPOS', lane_of(tenant), id)
  if not place then
    local member = tenant .. ' ' .. (redis.call('HGET', jobs .. id, 'user') or '')
    place = redis.call('LPOS', parking_of(member), id)
  end
  if not place then -- not sorted yet, behind a very large burst: everything ahead counts
    place = redis.call('LPOS', inbox, id)
    return place and place + number_in(state, 'queued', 0) or -1
  end
  local tag = tonumber(redis.call('ZSCORE', ring, tenant)) or virtual_time()
  tag = tag + cost_of_first(lane_of(tenant), place) / number_in(weights, tenant, 1)

  local rivals = redis.call('ZRANGE', ring, '-inf', string.format('%.17g', tag), 'BYSCORE', 'WITHSCORES')
  local ahead, total = place, #rivals / 2
  for i = 1, math.min(total, most_costs) do
    local other, start = rivals[2 * i - 1], tonumber(rivals[2 * i])
    if other ~= tenant then
      ahead = ahead + jobs_within(lane_of(other), (tag - start) * number_in(weights, other, 1), other < tenant)
    end
  end
  local rest = total - most_costs
  if rest > 0 then
    local looked, found, step = 0, 0, math.max(1, rest / most_lengths)
    local at = most_costs + 1
    while at <= total do
      local other, start = rivals[2 * math.floor(at) - 1], tonumber(rivals[2 * math.floor(at)])
      looked = looked + 1
      if other ~= tenant then
        local room = math.floor((tag - start) * number_in(weights, other, 1) / mean_gpu_s()) + 1
        found = found + math.min(redis.call('LLEN', lane_of(other)), room)
      end
      at = at + step
    end
    ahead = ahead + math.floor(found * rest / looked + 0.5)
  end
  return ahead
end

return { jobs_ahead(), speed() }
