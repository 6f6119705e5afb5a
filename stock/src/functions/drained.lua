-- Notes how far the orders of a shard are in a ledger.
--
-- KEYS  1 meta
-- ARGV  1 ring, 2 number of the latest entry in the ledger
-- Answer  1
-- Errors  NOSHARD, WRONGRING, AHEAD
--
-- Atomic because a number beyond the latest entry must be refused: it belongs to data that Redis has lost. The time is
-- that of the shard's primary. A later call replaces an earlier one, also by a lower number: then the ledger has lost
-- orders, and writes them again. The fields are written by HINCRBY: a ledger needs no right to set the others.
local function drained(keys, args)
  local shard = redis.call('HMGET', keys[1], 'ring', 'seq', 'drained', 'drained_at')
  local refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end
  if tonumber(args[2]) > tonumber(shard[2]) then
    return redis.error_reply('AHEAD the shard has ' .. shard[2] .. ' entries, not ' .. args[2])
  end

  local noted = { drained = args[2] - (shard[3] or 0), drained_at = now_ms() - (shard[4] or 0) }
  for field, difference in pairs(noted) do
    redis.call('HINCRBY', keys[1], field, string.format('%.0f', difference))
  end
  return 1
end
