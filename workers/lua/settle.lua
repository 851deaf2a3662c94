-- ARGV[3]: job, ARGV[4]: its estimated cost, ARGV[5]: what it took, in GPU-seconds. Safe to repeat before release.
settle(ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
