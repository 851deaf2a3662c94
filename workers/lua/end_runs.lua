-- Settles the cost of many runs and frees their slots. ARGV from 3: job, estimated cost, what it took, and so on.
for i = 3, #ARGV, 3 do
  if tonumber(ARGV[i + 2]) >= 0 then
    settle(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
  end
  release(ARGV[i])
end
