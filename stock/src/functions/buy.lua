-- Claims a batch of users in their home shard and takes one token for each.
--
-- KEYS  1 meta, 2 claims, 3 orders
-- ARGV  1 ring, 2 the latest time in ms at which the call may be executed, then for each buyer: user id, order id,
--       correlation id
-- Answer  { stock left, now in ms, version of the shard's settings, one element per buyer }, where the element is
--           1              bought, at `now`
--           0              empty: the shard has no token left
--           -1             not open: paused, ended, or outside the window
--           "order:ms"     the claim that this user already has; the caller compares order ids
-- Errors  NOSHARD, WRONGRING, LATE
--
-- A call that comes late does nothing: its caller has given it up, and may have refused the buyers since.
--
-- Atomic because the call must look up the claim, take the token, record the claim and append the order in one step.
-- Otherwise two calls for one user could both find no claim. XADD is the only write that can fail, so it comes first:
-- a function is not rolled back. Nothing is written for empty and not open. For a user who already has a claim, `tick` is
-- written, because a barrier after reads alone proves nothing.
local function buy(keys, args)
  local meta, claims, orders = keys[1], keys[2], keys[3]
  local shard = redis.call('HMGET', meta, 'ring', 'state', 'starts_at', 'ends_at', 'stock', 'sold', 'seq', 'version')
  local refusal = check_ring(shard[1], args[1])
  if refusal then return refusal end
  local now = now_ms()
  local at = tonumber(now)
  if at > tonumber(args[2]) then
    return redis.error_reply('LATE the call came at ' .. now .. ', after ' .. args[2])
  end

  local users, buyers = {}, 0
  for arg = 3, #args, 3 do
    buyers = buyers + 1
    users[buyers] = args[arg]
  end
  local held = redis.call('HMGET', claims, unpack(users))

  local open = shard[2] == 'open' and at >= tonumber(shard[3]) and at < tonumber(shard[4])
  local left = tonumber(shard[5])
  local recognized = false
  local taken, new_claims, entry, fields, answers = {}, {}, {}, 0, {}
  for buyer = 1, buyers do
    local user = users[buyer]
    local claim = held[buyer] or taken[user]
    if claim then
      answers[buyer] = claim
      recognized = true
    elseif not open then
      answers[buyer] = -1
    elseif left == 0 then
      answers[buyer] = 0
    else
      claim = args[buyer * 3 + 1] .. ':' .. now
      taken[user] = claim
      new_claims[fields + 1], new_claims[fields + 2] = user, claim
      entry[fields + 1], entry[fields + 2] = user, claim .. ':' .. args[buyer * 3 + 2]
      fields = fields + 2
      left = left - 1
      answers[buyer] = 1
    end
  end

  if fields > 0 then
    local seq = tonumber(shard[7]) + 1
    redis.call('XADD', orders, seq .. '-0', unpack(entry))
    redis.call('HSET', claims, unpack(new_claims))
    redis.call('HSET', meta, 'stock', left, 'sold', tonumber(shard[6]) + fields / 2, 'seq', seq)
  elseif recognized then
    redis.call('HINCRBY', meta, 'tick', 1)
  end
  return { left, now, shard[8], answers }
end
