-- Takes a place of a user in a client network, or gives it back. A network has a place for each unit that it may buy.
--
-- KEYS  1 places of the network, 2 of its /56, 3 of its /48 (2 and 3 only of an IPv6 network)
-- ARGV  1 user id, 2 `take` or `give`, 3 time until which places are kept in ms, then the number of places of each key
-- Answer  1 if the user has a place in all networks, otherwise 0
-- Errors  none
--
-- Atomic because two users could both take the last place otherwise, and because a place is taken in all networks or in
-- none. A key holds the attempts of each user that have not ended without a unit: the place of a user is free again when
-- the last of them has given it back. There is no barrier: a failover may forget places.
local function place(keys, args)
  local user, is_taking, kept_until = args[1], args[2] == 'take', args[3]
  for number, key in ipairs(keys) do
    local is_new = not redis.call('HGET', key, user)
    if is_new and (not is_taking or redis.call('HLEN', key) >= tonumber(args[3 + number])) then return 0 end
  end
  for _, key in ipairs(keys) do
    local attempts = redis.call('HINCRBY', key, user, is_taking and 1 or -1)
    if attempts <= 0 then redis.call('HDEL', key, user) end
    redis.call('PEXPIREAT', key, kept_until)
  end
  return 1
end
