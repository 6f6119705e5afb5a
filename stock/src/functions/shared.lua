-- What every operation shares. Prepended to the library; not an operation itself.

-- Redis' own clock in milliseconds, as a string: node clocks never decide anything.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', math.floor(time[2] / 1000))
end

-- The error to answer with when a call was made for another shard layout, or nil. A caller that computed
-- homes on another ring would claim users in the wrong shard, so this comes before anything else.
local function misdirected(held, given)
  if not held then
    return redis.error_reply('NOSHARD this shard does not exist')
  end
  if held ~= given then
    return redis.error_reply('WRONGRING this shard belongs to ring ' .. held .. ', not ' .. given)
  end
end

-- A rate limit: the generic cell rate algorithm (GCRA), a bucket of `burst` permits each of which comes back in
-- `interval` ms. What it remembers lies in this server's memory alone, neither written nor replicated: a limit costs
-- no write, and a failover that forgets it lets somebody try a few times more. Whoever was not seen for a whole
-- window has a full bucket again, so two generations of names lose nothing; `NAMES_MAX` bounds both of them.
local NAMES_MAX = 50000
local function rate_limit()
  local recent, former, names, since = {}, {}, 0, 0

  local function remember(name, full_at, window, now)
    if now - since >= window or names >= NAMES_MAX then
      recent, former, names, since = {}, recent, 0, now
    end
    if not recent[name] then names = names + 1 end
    recent[name] = full_at
  end

  -- Takes up to `want` permits, after the `spent` ones that were used without asking; never more than a quarter of
  -- those that are left, so that one caller is not refused while another holds the last of them. Answers how many
  -- were had, and with none how many ms until there is one.
  return function(name, spent, want, interval, burst, now)
    local full_at = recent[name] or former[name] or now
    if full_at < now then full_at = now end
    full_at = full_at + spent * interval
    local window = burst * interval
    local left = math.max(0, math.floor((now + window - full_at) / interval))
    local granted = math.min(want, math.ceil(left / 4))
    full_at = full_at + granted * interval
    remember(name, full_at, window, now)
    if granted > 0 then return granted, 0 end
    return 0, math.max(1, math.ceil(full_at + interval - window - now))
  end
end

-- A limit for each shard that this server serves. Those of shards that are gone are forgotten with all others, once
-- there are as many as no server serves.
local LIMITS_MAX = 256
local function rate_limits()
  local limits, count = {}, 0
  return function(shard)
    if not limits[shard] then
      if count >= LIMITS_MAX then limits, count = {}, 0 end
      limits[shard], count = rate_limit(), count + 1
    end
    return limits[shard]
  end
end
