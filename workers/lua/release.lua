-- ARGV[3]: the job that holds no slot any more. Safe to repeat.
return release(ARGV[3])
