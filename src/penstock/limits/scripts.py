"""What the shared authority runs inside Redis or Valkey: the ring of `ring.py`, in Lua.

A bucket of a window is a hash: `c` the sub-window that is now, `n` the newest one that was touched,
`s` what counts at `n`, and amounts by number of sub-window. A bucket of permits is a hash of
`<holder>` to amount and `<holder>!` to the moment in milliseconds at which they expire. All keys of
one call belong to one organization, whose name in braces keeps them on one node of a cluster. The
last argument is the time in milliseconds, or -1 for the server's own.
"""

_RING = """
local function at_of(key, sub, now)
  return math.max(math.floor(now / sub), tonumber(redis.call('HGET', key, 'c') or 0))
end
local function amount(key, at)
  return tonumber(redis.call('HGET', key, at) or 0)
end
local function advance(key, count, at)
  local newest = tonumber(redis.call('HGET', key, 'n') or 0)
  if at <= newest then return newest, tonumber(redis.call('HGET', key, 's') or 0) end
  local total = tonumber(redis.call('HGET', key, 's') or 0)
  if at - newest >= count + 2 then
    redis.call('DEL', key)
    total = 0
  else
    for past = newest - count, at - count - 1 do
      total = total - amount(key, past)
    end
    for past = newest - count - 1, at - count - 2 do
      redis.call('HDEL', key, past)
    end
  end
  redis.call('HSET', key, 'n', at, 's', total)
  return at, total
end
local function free_of(key, limit, count, at)
  local newest, total = advance(key, count, at)
  local used = total
  if at < newest then
    used = math.max(used, used - amount(key, newest) + amount(key, at - count))
  end
  return limit - used
end
local function add(key, count, at, change)
  if change <= 0 then
    change = math.max(change, -amount(key, at))
    if change >= 0 then return end
  end
  local newest, total = advance(key, count, at)
  if at >= newest - count - 1 then
    redis.call('HINCRBY', key, at, change)
    if at >= newest - count then redis.call('HSET', key, 's', total + change) end
  end
end
local function wait_for(key, limit, count, wanted, at)
  if wanted <= free_of(key, limit, count, at) then return at end
  local newest, total = advance(key, count, at)
  local need = total + wanted - limit
  if need <= 0 then return newest end
  for past = newest - count, newest - 1 do
    need = need - amount(key, past)
    if need <= 0 then return past + count + 1 end
  end
  return newest + count + 1
end
local function held(key, now)
  local sum, all = 0, redis.call('HGETALL', key)
  local ends = {}
  for i = 1, #all, 2 do
    if string.sub(all[i], -1) == '!' then ends[string.sub(all[i], 1, -2)] = tonumber(all[i + 1]) end
  end
  for i = 1, #all, 2 do
    if string.sub(all[i], -1) ~= '!' then
      if (ends[all[i]] or 0) <= now then
        redis.call('HDEL', key, all[i], all[i] .. '!')
      else
        sum = sum + tonumber(all[i + 1])
      end
    end
  end
  return sum
end
local now = tonumber(table.remove(ARGV))
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

TAKE = (
    _RING
    + """
-- KEYS: the taking, then a bucket each, then the epoch. ARGV: repeat_ms, holder, permit_ms, then
-- for each bucket limit, sub_window_ms, count, least, want, ahead; then the epoch in which the
-- taker believes to be, or nothing.
local epoch, epoch_key = table.remove(ARGV), table.remove(KEYS)
if epoch ~= '' and redis.call('GET', epoch_key) ~= epoch then return {2, now} end
local known = redis.call('GET', KEYS[1])
if known then return cjson.decode(known) end
local holder, permit_ms, plan = ARGV[2], tonumber(ARGV[3]), {}
for i = 1, #KEYS - 1 do
  local key, first = KEYS[i + 1], 4 + (i - 1) * 6
  local limit, sub = tonumber(ARGV[first]), tonumber(ARGV[first + 1])
  local count = tonumber(ARGV[first + 2])
  local least, want = tonumber(ARGV[first + 3]), tonumber(ARGV[first + 4])
  local ahead, at, free = tonumber(ARGV[first + 5]), 0, 0
  if sub == 0 then
    free = limit - held(key, now)
  else
    at = at_of(key, sub, now)
    free = free_of(key, limit, count, at + ahead)
    redis.call('HSET', key, 'c', at)
    redis.call('PEXPIRE', key, sub * (count + 3))
  end
  if free < least then
    local retry = -1
    if sub > 0 and least <= limit then retry = wait_for(key, limit, count, least, at) * sub end
    return {0, now, i - 1, math.max(0, free), retry}
  end
  local given = math.min(want, math.max(0, free))
  plan[i] = {key, sub, count, at + ahead, given, math.max(0, free - given)}
end
local answer = {1, now}
for _, one in ipairs(plan) do
  local key, sub, count, at, given, rest = unpack(one)
  if sub == 0 then
    redis.call('HINCRBY', key, holder, given)
    redis.call('HSET', key, holder .. '!', now + permit_ms)
    redis.call('PEXPIRE', key, permit_ms)
    at = 0
  else
    add(key, count, at, given)
  end
  answer[#answer + 1] = given
  answer[#answer + 1] = at
  answer[#answer + 1] = rest
end
redis.call('SET', KEYS[1], cjson.encode(answer), 'PX', ARGV[1])
return answer
"""
)

GIVE_BACK = (
    _RING
    + """
-- KEYS: a bucket. ARGV: holder, sub_window_ms, count, sub-window, amount.
local sub, count, change = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
if sub == 0 then
  local left = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) - change
  if left > 0 then
    redis.call('HSET', KEYS[1], ARGV[1], left)
  else
    redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. '!')
  end
  return 1
end
add(KEYS[1], count, tonumber(ARGV[4]), -change)
redis.call('PEXPIRE', KEYS[1], sub * (count + 3))
return 1
"""
)

LOOK = (
    _RING
    + """
-- KEYS: the epoch, the nodes. ARGV: a node, how long one lives that is silent, a new epoch.
-- Where nothing is, an epoch begins: what was counted before is lost.
redis.call('SET', KEYS[1], ARGV[3] .. ':' .. now, 'NX')
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {now, redis.call('GET', KEYS[1]), redis.call('ZCARD', KEYS[2])}
"""
)

RENEW = (
    _RING
    + """
-- KEYS: a bucket of permits. ARGV: holder, permit_ms, and how many it has.
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[1] .. '!', now + tonumber(ARGV[2]))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. '!')
end
return 1
"""
)
