-- Adds answered jobs to the accounts of their owners. KEYS: accounts (see keys.usage). ARGV: kind, then for each account
-- how many jobs, their GPU time in microseconds, and seconds to keep the account.
local jobs, gpu_us = ARGV[1] .. ':jobs', ARGV[1] .. ':gpu_us'
for i, account in ipairs(KEYS) do
  redis.call('HINCRBY', account, jobs, ARGV[3 * i - 1])
  redis.call('HINCRBY', account, gpu_us, ARGV[3 * i])
  redis.call('HINCRBY', account, 'gpu_us', ARGV[3 * i]) -- all kinds together, which budgets are held against
  redis.call('EXPIRE', account, ARGV[3 * i + 1])
end
