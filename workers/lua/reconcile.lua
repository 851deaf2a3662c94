-- Repairs what a killed process left behind. KEYS[3]: rq's zset of running executions ("job:execution").
-- ARGV[3]: seconds after which a popped id that was never started is put back, at the head of its lane and without
-- spending a retry. Work is proportional to the jobs in flight, and to at most 256 parked users and capped tenants.
-- Returns {ids put back, slots of dead workers' jobs freed}.
local now, age_s = now_s(), tonumber(ARGV[3])

local alive = {}
for _, execution in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  alive[string.match(execution, '^[^:]*')] = true
end

local rescued = 0
for _, id in ipairs(redis.call('LRANGE', intermediate, 0, -1)) do
  local entry = entry_of(id)
  if not entry or entry.popped > now then -- first seen, or the clock went back: its age counts from here
    entry = entry or { cost = 0, start = 0, tenant = tenant_of(id), user = '' }
    entry.popped = now
    remember(id, entry)
  end
  if alive[id] then
    redis.call('LREM', intermediate, 1, id)
  elseif now - entry.popped >= age_s then
    redis.call('LREM', intermediate, 0, id)
    local returns = redis.call('HGET', jobs .. id, 'status') == 'queued'
    settle(id, 0, 0)
    release(id, returns)
    if returns then
      hand_back(id)
      rescued = rescued + 1
    end
  else
    alive[id] = true
  end
end

local freed, counts = 0, {}
local function count(name)
  counts[name] = (counts[name] or 0) + 1
end
local ids = redis.call('HKEYS', running)
for _, id in ipairs(ids) do
  if alive[id] then
    local entry = entry_of(id)
    count(entry.tenant)
    if entry.user ~= '' then
      count(entry.tenant .. ' ' .. entry.user)
    end
  else
    freed = freed + release(id)
  end
end

local recorded = redis.call('HGETALL', in_flight)
for i = 1, #recorded, 2 do
  if not counts[recorded[i]] then
    redis.call('HDEL', in_flight, recorded[i])
  end
end
for name, number in pairs(counts) do
  redis.call('HSET', in_flight, name, number)
end

local tenant_cap, user_cap = number_in(state, 'tenant_cap', math.huge), number_in(state, 'user_cap', math.huge)
for _, tenant in ipairs(redis.call('ZRANGE', capped, 0, 255)) do
  if (counts[tenant] or 0) < tenant_cap then
    uncap(tenant)
  end
end
for _, member in ipairs(redis.call('SRANDMEMBER', parked, 256)) do
  for _ = (counts[member] or 0) + 1, math.min(user_cap, 256) do
    if not unpark(member) then
      break
    end
  end
end
return { rescued, freed }
