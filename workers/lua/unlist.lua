-- Takes ids that have been started off the list of popped ones. ARGV from 3: the ids.
for i = 3, #ARGV do
  redis.call('LREM', intermediate, 1, ARGV[i])
end
