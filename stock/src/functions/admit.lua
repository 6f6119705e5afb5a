-- Grants permits beyond the shares of the nodes, for requests of clients.
--
-- KEYS  1 the bucket of the clients (only selects the slot; the key need not exist)
-- ARGV  1 and 2 the limit (ms until a permit comes back, permits), then for each client: its name, permits used
--       without asking, permits wanted
-- Answer  for each client: permits granted, and ms until the next permit when none was granted
-- Errors  none
--
-- Atomic because permits are checked and taken in one step; otherwise two nodes could both take the last ones. Writes
-- nothing.
--
-- The limit is the generic cell rate algorithm (GCRA) with a bucket of `burst` permits, each of which comes back after
-- `interval` ms. Its state is only in this server's memory, neither written nor replicated. So a limit costs no write,
-- and after a failover a client may get some extra tries. The bucket of a name that was not seen for a whole window is
-- full again, so keeping two generations of names loses nothing. `NAMES_MAX` bounds each generation. Nodes may have used
-- more without asking than was left. This debt is paid back first, and is one bucket at most. So a bucket that would be
-- full only after two windows was remembered by a clock that has been set back since. It counts as full: the wrong time
-- must not lock its name out.
local NAMES_MAX = 50000
local recent, former, names, since = {}, {}, 0, 0

local function remember(name, full_at, window, now)
  if now - since >= window or names >= NAMES_MAX then
    recent, former, names, since = {}, recent, 0, now
  end
  if not recent[name] then names = names + 1 end
  recent[name] = full_at
end

-- Takes up to `want` permits, after the `spent` permits that were used without asking. Returns the number granted; when
-- it is 0, also the ms until the next permit.
local function permits_of(name, spent, want, interval, burst, now)
  local window = burst * interval
  local full_at = recent[name] or former[name] or now
  if full_at < now or full_at > now + 2 * window then full_at = now end
  full_at = math.min(full_at + spent * interval, now + 2 * window)
  local granted = math.min(want, math.max(0, math.floor((now + window - full_at) / interval)))
  full_at = full_at + granted * interval
  remember(name, full_at, window, now)
  if granted > 0 then return granted, 0 end
  return 0, math.max(1, math.ceil(full_at + interval - window - now))
end

local function admit(_, args)
  local now, interval, burst = tonumber(now_ms()), tonumber(args[1]), tonumber(args[2])
  local answers = {}
  for arg = 3, #args, 3 do
    local granted, wait = permits_of(args[arg], tonumber(args[arg + 1]), tonumber(args[arg + 2]), interval, burst, now)
    answers[#answers + 1], answers[#answers + 2] = granted, wait
  end
  return answers
end
