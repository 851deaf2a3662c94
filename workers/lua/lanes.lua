-- Shared by every script of the fair queue: the keys, and the three moves a tenant can make.
-- A tenant that has queued jobs is either in the ring (may be served) or capped (waits for one of its own jobs to
-- end); a tenant without is remembered in finish only while its last finish tag lies ahead of virtual time.
-- KEYS: inbox (rq's own list), intermediate (rq's own list). ARGV[1]: prefix of the fair state, ARGV[2]: of job hashes.
local inbox, intermediate = KEYS[1], KEYS[2]
local fair, jobs = ARGV[1], ARGV[2]
local ring = fair .. 'ring' -- zset tenant -> start tag of its next job, in weighted GPU-seconds of virtual time
local capped = fair .. 'capped' -- zset tenant -> start tag, for tenants that run as many jobs as they may
local finish = fair .. 'finish' -- zset tenant -> finish tag of its last job, for tenants without queued jobs
local state = fair .. 'state' -- hash virtual_gpu_s, queued (ids in lanes and parked), tenant_cap, user_cap
local weights = fair .. 'weights' -- hash tenant -> weight, where it is not 1
local running = fair .. 'running' -- hash job id -> "cost_gpu_s start_tag popped_at_s tenant user" of taken jobs
local in_flight = fair .. 'in_flight' -- hash "tenant" and "tenant user" -> jobs taken and not yet released
local heads = fair .. 'heads' -- set of ids in the inbox that belong at the head of their lane
local parked = fair .. 'parked' -- set of "tenant user" whose jobs wait in a list of their own, for the user's cap

local function tenant_of(id)
  return string.match(id, '^(.-)__') or '-'
end

local function lane_of(tenant)
  return fair .. 'lane:' .. tenant
end

local function parking_of(member)
  return fair .. 'parking:' .. member
end

local function number_in(key, name, default)
  return tonumber(redis.call('HGET', key, name) or default)
end

local function now_s()
  return tonumber(redis.call('TIME')[1])
end

-- The start tag of a tenant that has been away. Corrected costs can leave the ring behind the last served tag, and
-- a newcomer must not wait for that gap.
local function virtual_time()
  local v = number_in(state, 'virtual_gpu_s', 0)
  local first = tonumber(redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES')[2])
  return (first and first < v) and first or v
end

local function join(tenant)
  if redis.call('ZSCORE', ring, tenant) or redis.call('ZSCORE', capped, tenant) then
    return
  end
  local owed = tonumber(redis.call('ZSCORE', finish, tenant) or 0)
  redis.call('ZADD', ring, math.max(virtual_time(), owed), tenant)
  redis.call('ZREM', finish, tenant)
end

-- Sleeping workers watch the inbox, so whatever becomes servable goes through it.
local function hand_back(id)
  redis.call('SADD', heads, id)
  redis.call('LPUSH', inbox, id)
end

local function entry_of(id)
  local entry = redis.call('HGET', running, id)
  if not entry then
    return nil
  end
  local cost, start, popped, tenant, user = string.match(entry, '^(%S+) (%S+) (%S+) (%S*) (.*)$')
  return { cost = tonumber(cost), start = tonumber(start), popped = tonumber(popped), tenant = tenant, user = user }
end

local function remember(id, entry)
  local numbers = entry.cost .. ' ' .. entry.start .. ' ' .. entry.popped
  redis.call('HSET', running, id, numbers .. ' ' .. entry.tenant .. ' ' .. entry.user)
end

local function uncap(tenant, quietly)
  local tag = redis.call('ZSCORE', capped, tenant)
  if not tag then
    return
  end
  redis.call('ZREM', capped, tenant)
  redis.call('ZADD', ring, math.max(tonumber(tag), virtual_time()), tenant)
  local head = not quietly and redis.call('LPOP', lane_of(tenant))
  if head then
    redis.call('HINCRBY', state, 'queued', -1)
    hand_back(head)
  end
end

local function unpark(member)
  local id = redis.call('LPOP', parking_of(member))
  if id then
    redis.call('HINCRBY', state, 'queued', -1)
    hand_back(id)
  end
  if redis.call('EXISTS', parking_of(member)) == 0 then
    redis.call('SREM', parked, member)
  end
  return id
end

local function one_less(name)
  local left = redis.call('HINCRBY', in_flight, name, -1)
  if left <= 0 then
    redis.call('HDEL', in_flight, name)
  end
  return left
end

-- The job holds no slot any more. Whoever waited for that slot may be served, unless this very job will take it again.
local function release(id, will_return)
  local entry = entry_of(id)
  if not entry then
    return 0
  end
  redis.call('HDEL', running, id)
  if one_less(entry.tenant) < number_in(state, 'tenant_cap', math.huge) then
    uncap(entry.tenant, will_return)
  end
  if entry.user ~= '' then
    local member = entry.tenant .. ' ' .. entry.user
    if one_less(member) < number_in(state, 'user_cap', math.huge) and not will_return then
      unpark(member)
    end
  end
  return 1
end

-- Replaces what a tenant was charged for one job by what the job really took.
local function settle(id, estimated_gpu_s, actual_gpu_s)
  local entry = entry_of(id)
  local tenant = entry and entry.tenant or tenant_of(id)
  local weight = number_in(weights, tenant, 1)
  local delta = (actual_gpu_s - (entry and entry.cost or estimated_gpu_s)) / weight
  if entry then
    entry.cost = actual_gpu_s
    remember(id, entry)
  end
  for _, key in ipairs({ ring, capped, finish }) do
    if redis.call('ZSCORE', key, tenant) then
      redis.call('ZINCRBY', key, delta, tenant)
      return
    end
  end
  if entry and entry.start + actual_gpu_s / weight > number_in(state, 'virtual_gpu_s', 0) then
    redis.call('ZADD', finish, entry.start + actual_gpu_s / weight, tenant)
  end
end
