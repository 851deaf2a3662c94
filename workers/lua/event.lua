-- Tells a step in a job's life: to the live hash, where a late reader finds it, and to its front-end's stream.
-- A life ends exactly once, whoever ends it: a worker, a user's cancel, or rq's own cleanup of abandoned jobs.
-- Runs inside rq's MULTI. KEYS: live hash, event stream.
-- ARGV: event, its type, 1 if it ends the job, 1 if it begins an execution, execution, attempt, seconds to keep the
-- live hash, 1 if the job has a front-end, longest stream, seconds to keep the stream, doorbell, job id.
local live, stream = KEYS[1], KEYS[2]
if ARGV[3] == '1' then
  if redis.call('HEXISTS', live, 'final') == 1 then
    return 0
  end
  redis.call('HSET', live, 'final', ARGV[1], 'state', ARGV[2])
else
  redis.call('HSET', live, 'state', ARGV[2], 'execution_id', ARGV[5], 'attempt', ARGV[6])
  if ARGV[4] == '1' then
    redis.call('HDEL', live, 'final')
  end
end
redis.call('EXPIRE', live, ARGV[7])
if ARGV[8] == '1' then
  redis.call('XADD', stream, 'MAXLEN', '~', ARGV[9], '*', 'event', ARGV[1])
  redis.call('EXPIRE', stream, ARGV[10])
end
redis.call('PUBLISH', ARGV[11], ARGV[12])
return 1
