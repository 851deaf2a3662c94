-- Adds answered jobs to the accounts of their owners, and gives back what they had reserved there.
-- KEYS: accounts (see keys.usage), then the jobs' admission records. ARGV: kind, number of accounts, then for each account
-- how many jobs, their GPU time in microseconds, and seconds to keep the account.
local jobs, gpu_us, accounts = ARGV[1] .. ':jobs', ARGV[1] .. ':gpu_us', tonumber(ARGV[2])
for i = 1, accounts do
  local account, at = KEYS[i], 3 * i
  redis.call('HINCRBY', account, jobs, ARGV[at])
  redis.call('HINCRBY', account, gpu_us, ARGV[at + 1])
  redis.call('HINCRBY', account, 'gpu_us', ARGV[at + 1]) -- all kinds together, which budgets are held against
  redis.call('EXPIRE', account, ARGV[at + 2])
end
local records = #KEYS > accounts and redis.call('MGET', unpack(KEYS, accounts + 1)) or {}
for i, record in ipairs(records) do
  if record and string.find(record, ' reserved\n', 1, true) then
    for account, reserved in string.gmatch(record, '(%S+) (%d+) reserved') do
      if redis.call('EXISTS', account) == 1 then
        redis.call('HINCRBY', account, 'reserved_us', -reserved)
      end
    end
    redis.call('SET', KEYS[accounts + i], (string.gsub(record, '%S+ %d+ reserved\n', '')), 'KEEPTTL')
  end
end
