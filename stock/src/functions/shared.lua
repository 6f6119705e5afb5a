-- Code shared by all operations. Prepended to the library; not an operation.

-- Returns Redis' own clock in milliseconds, as a string. Clocks of nodes never decide anything.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', math.floor(time[2] / 1000))
end

-- Returns an error when the call was made for another layout or another incarnation of the shard, otherwise nil. A
-- caller with another ring would claim users in the wrong shard, so every operation checks this first. While a sale is
-- being created, its coordinators do not know the incarnations yet: they give the fingerprint alone.
local function check_ring(held, given)
  if not held then
    return redis.error_reply('NOSHARD this shard does not exist')
  end
  if held ~= given and string.sub(held, 1, #given + 1) ~= given .. ':' then
    return redis.error_reply('WRONGRING this shard belongs to ring ' .. held .. ', not ' .. given)
  end
end

-- Returns an error unless the caller gave the control key of the shard, otherwise nil. Redis lets a user call a function
-- only with keys that the user may write. So an operation that asks for this key is closed to users without rights to it.
local function require_control(meta, control)
  if control ~= (string.gsub(meta, ':meta$', ':control')) or control == meta then
    return redis.error_reply('NOTCONTROL this operation needs the control key of the shard')
  end
end

-- Raises a channel into a shard to a cumulative value, and the stock by the difference.
local function raise_channel(meta, ring, channel, cumulative)
  local shard = redis.call('HMGET', meta, 'ring', 'stock', channel)
  local refusal = check_ring(shard[1], ring)
  if refusal then return refusal end

  local stock, before, cumulative = tonumber(shard[2]), tonumber(shard[3] or 0), tonumber(cumulative)
  if cumulative <= before then
    redis.call('HINCRBY', meta, 'tick', 1)
    return { before, stock }
  end
  stock = stock + cumulative - before
  redis.call('HSET', meta, 'stock', stock, channel, cumulative)
  return { cumulative, stock }
end

-- A rate limit: the generic cell rate algorithm (GCRA) with a bucket of `burst` permits, each of which comes back
-- after `interval` ms. Its state is only in this server's memory, neither written nor replicated. So a limit costs no
-- write, and after a failover a client may get some extra tries. The bucket of a name that was not seen for a whole
-- window is full again, so keeping two generations of names loses nothing. `NAMES_MAX` bounds each generation. A bucket
-- cannot be emptier than empty, so one that would be full only after two windows was remembered by a clock that has been
-- set back since. It counts as full: the wrong time must not lock its name out.
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

  -- Takes up to `want` permits, after the `spent` permits that were used without asking. Grants at most a quarter of
  -- the permits left, so that one caller is not refused while another holds the last ones. Returns the number granted;
  -- when it is 0, also the ms until the next permit.
  return function(name, spent, want, interval, burst, now)
    local window = burst * interval
    local full_at = recent[name] or former[name] or now
    if full_at < now or full_at > now + 2 * window then full_at = now end
    full_at = math.min(full_at + spent * interval, now + window)
    local left = math.max(0, math.floor((now + window - full_at) / interval))
    local granted = math.min(want, math.ceil(left / 4))
    full_at = full_at + granted * interval
    remember(name, full_at, window, now)
    if granted > 0 then return granted, 0 end
    return 0, math.max(1, math.ceil(full_at + interval - window - now))
  end
end

-- Keeps one limit per shard of this server. At `LIMITS_MAX`, more shards than any server serves, all limits are
-- dropped, including those of shards that no longer exist.
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
