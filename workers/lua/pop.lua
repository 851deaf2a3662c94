-- Takes up to ARGV[3] job ids in fair order and moves them into rq's intermediate list.
-- Start-time fair queuing: Goyal, Vin and Chen, "Start-time Fair Queuing: A Scheduling Algorithm for Integrated
-- Services Packet Switching Networks", SIGCOMM 1996. A job's start tag is the later of virtual time and its tenant's
-- previous finish tag; its finish tag lies cost / weight behind; the smallest start tag is served next, and virtual
-- time is the start tag of the job served last.
-- ARGV[4]: most ids sorted out of the inbox, ARGV[5]: most ids looked at without being served.
-- Returns {ids, 1 if it stopped early, ids left in the inbox}. Work is bounded by ARGV[3] + ARGV[4] + ARGV[5].
local want, max_ingest, max_misses = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local misses_per_tenant = 32
local grown = 0

local function ingest()
  local ids = redis.call('LPOP', inbox, max_ingest) or {}
  local handed_back = #ids > 0 and redis.call('EXISTS', heads) == 1
  local again = {}
  for _, id in ipairs(ids) do
    local tenant, length = tenant_of(id), nil
    if handed_back and redis.call('SREM', heads, id) == 1 then
      length = redis.call('LPUSH', lane_of(tenant), id)
    else
      local job = redis.call('HMGET', jobs .. id, 'status', 'started_at', 'enqueue_at_front')
      if job[1] == 'queued' then
        if (job[2] and job[2] ~= '') or job[3] == '1' then
          again[#again + 1] = id
        else
          length = redis.call('RPUSH', lane_of(tenant), id)
        end
      end
    end
    if length then
      grown = grown + 1
      if length == 1 then
        join(tenant)
      end
    end
  end
  for i = #again, 1, -1 do -- reversed, so that the first retry comes out first
    local tenant = tenant_of(again[i])
    grown = grown + 1
    if redis.call('LPUSH', lane_of(tenant), again[i]) == 1 then
      join(tenant)
    end
  end
end

-- When a busy period has ended, nobody owes anything for having used an idle machine, and tags start small again.
local function begin_anew()
  local waiting, tenants = 0, redis.call('ZRANGE', ring, 0, 255)
  for _, tenant in ipairs(tenants) do
    waiting = waiting + redis.call('LLEN', lane_of(tenant))
  end
  if waiting > 0 then -- never expected; a wrong count must not hide jobs
    redis.call('HSET', state, 'queued', waiting)
  elseif #tenants < 256 then
    redis.call('DEL', ring, finish, in_flight)
    redis.call('HDEL', state, 'virtual_gpu_s', 'queued')
  end
end

if redis.call('EXISTS', running) == 0 and number_in(state, 'queued', 0) <= 0 then
  begin_anew()
end
ingest()
local left_in_inbox = redis.call('LLEN', inbox)
if left_in_inbox == 0 then
  redis.call('DEL', heads)
end

local tenant_cap = number_in(state, 'tenant_cap', math.huge)
local user_cap = number_in(state, 'user_cap', math.huge)
local v = number_in(state, 'virtual_gpu_s', 0)
local now = now_s()
local served, is_served, entries, misses, stopped = {}, {}, {}, 0, 0
local order, first, bound = {}, 1, -math.huge -- tenants with the smallest tags, ascending; tags up to bound are all here
local aside, n_aside = {}, 0
local changed = { ring = {}, capped = {}, finish = {}, gone = {}, counts = {} }

-- Everything below is planned on this copy of the ring's head and written back at once: two calls for a whole
-- batch instead of two for each job.
local function write(command, key, arguments)
  if #arguments > 0 then
    redis.call(command, key, unpack(arguments))
  end
end

local function flush()
  for i = first, #order do
    if order[i].touched then
      changed.ring[#changed.ring + 1] = order[i].tag
      changed.ring[#changed.ring + 1] = order[i].tenant
      changed.counts[#changed.counts + 1] = order[i].tenant
      changed.counts[#changed.counts + 1] = order[i].count
    end
  end
  write('ZREM', ring, changed.gone)
  write('ZADD', ring, changed.ring)
  write('ZADD', capped, changed.capped)
  write('ZADD', finish, changed.finish)
  write('HSET', in_flight, changed.counts)
  changed = { ring = {}, capped = {}, finish = {}, gone = {}, counts = {} }
  order, first = {}, 1
end

local function leave(tenant, target)
  changed.gone[#changed.gone + 1] = tenant.tenant
  if target then
    target[#target + 1] = tenant.tag
    target[#target + 1] = tenant.tenant
  end
  if tenant.touched then
    changed.counts[#changed.counts + 1] = tenant.tenant
    changed.counts[#changed.counts + 1] = tenant.count
  end
end

local function load()
  flush()
  local size = want - #served + n_aside
  local found = redis.call('ZRANGE', ring, 0, size - 1, 'WITHSCORES')
  bound = #found < 2 * size and math.huge or tonumber(found[#found])
  local names = {}
  for i = 1, #found, 2 do
    if not aside[found[i]] then
      names[#names + 1] = found[i]
      order[#order + 1] = { tenant = found[i], tag = tonumber(found[i + 1]), misses = 0 }
    end
  end
  if #names == 0 then
    return false
  end
  local weight, count = redis.call('HMGET', weights, unpack(names)), redis.call('HMGET', in_flight, unpack(names))
  for i, tenant in ipairs(order) do
    tenant.weight, tenant.count = tonumber(weight[i] or 1), tonumber(count[i] or 0)
  end
  return true
end

local function place(tenant)
  local at = #order
  while at >= first and order[at].tag > tenant.tag do
    order[at + 1] = order[at]
    at = at - 1
  end
  order[at + 1] = tenant
end

-- Already taken: waiting to be started, or listed twice in this very call. A taken job that is queued again without
-- having been released belonged to a worker that died.
local function is_taken(id, tenant)
  if is_served[id] then
    return true
  end
  if redis.call('HEXISTS', running, id) == 0 then
    return false
  end
  if redis.call('LPOS', intermediate, id) then
    return true
  end
  tenant.count = math.max(tenant.count - release(id, true), 0)
  tenant.touched = true
  return false
end

local function exceeds_user_cap(id, tenant, user)
  if user == '' then
    return false
  end
  local member = tenant.tenant .. ' ' .. user
  if redis.call('HINCRBY', in_flight, member, 1) <= user_cap then
    return false
  end
  redis.call('HINCRBY', in_flight, member, -1)
  redis.call('RPUSH', parking_of(member), id)
  redis.call('SADD', parked, member)
  grown = grown + 1
  return true
end

local function serve(id, tenant, cost, user)
  if not (cost and cost > 0 and cost <= 86400) then
    cost = 1
  end
  served[#served + 1], is_served[id] = id, true
  entries[#entries + 1] = id
  entries[#entries + 1] = cost .. ' ' .. tenant.tag .. ' ' .. now .. ' ' .. tenant.tenant .. ' ' .. user
  v = tenant.tag
  tenant.tag, tenant.count, tenant.touched = tenant.tag + cost / tenant.weight, tenant.count + 1, true
  first = first + 1
  if tenant.count >= tenant_cap then
    leave(tenant, changed.capped)
  else
    place(tenant)
  end
end

local function miss(tenant)
  misses, tenant.misses = misses + 1, tenant.misses + 1
  if tenant.misses >= misses_per_tenant then -- others are looked at before this one again
    aside[tenant.tenant], n_aside = true, n_aside + 1
    first, stopped = first + 1, 1
    if tenant.touched then
      changed.ring[#changed.ring + 1] = tenant.tag
      changed.ring[#changed.ring + 1] = tenant.tenant
      changed.counts[#changed.counts + 1] = tenant.tenant
      changed.counts[#changed.counts + 1] = tenant.count
    end
  end
end

local function visit(tenant)
  if tenant.count >= tenant_cap then -- the cap was lowered
    first, misses = first + 1, misses + 1
    leave(tenant, changed.capped)
    return
  end
  local id = redis.call('LPOP', lane_of(tenant.tenant))
  if not id then
    first = first + 1
    leave(tenant, tenant.tag > v and changed.finish or nil)
    return
  end
  grown = grown - 1
  local job = redis.call('HMGET', jobs .. id, 'status', 'cost_gpu_s', 'user')
  local user = job[3] or ''
  if job[1] ~= 'queued' or is_taken(id, tenant) or exceeds_user_cap(id, tenant, user) then
    miss(tenant)
  else
    serve(id, tenant, tonumber(job[2] or 1), user)
  end
end

while #served < want do
  if misses >= max_misses then
    stopped = 1
    break
  end
  if first > #order or order[first].tag > bound then
    if not load() then
      break
    end
  end
  visit(order[first])
end
flush()

write('RPUSH', intermediate, served)
write('HSET', running, entries)
if grown ~= 0 then
  redis.call('HINCRBY', state, 'queued', grown)
end
if #served > 0 then
  redis.call('HSET', state, 'virtual_gpu_s', v)
  local past = redis.call('ZRANGE', finish, '-inf', v, 'BYSCORE', 'LIMIT', 0, 64 + want)
  write('ZREM', finish, past)
end
return { served, stopped, left_in_inbox }
