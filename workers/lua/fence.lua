-- What a worker must know before it ends executions: whether they are still its own, and how much text they have.
-- KEYS: registry of leases, then for each execution its job's hash and its text. ARGV: members of the registry.
local facts = {}
for i, lease in ipairs(ARGV) do
  local job = redis.call('HMGET', KEYS[2 * i], 'status', 'execution_id')
  local held = redis.call('ZSCORE', KEYS[1], lease) and 1 or 0
  facts[i] = { job[1] or '', job[2] or '', held, redis.call('STRLEN', KEYS[2 * i + 1]) }
end
return facts
