"""Lua scripts for `copies.py`. Each is one atomic operation on a copy.

A part of a copy has its own keys, the last of which is its lease. A reader of a missing part gets the lease, reads
PostgreSQL, and may fill the part if the lease still exists. Every write removes leases, so data that was read before
a write cannot replace it.

A part has `at`, the time of Redis's clock in microseconds at which it was right: that of the lease, or of the write
that updated it. A version that changes the format of copies renames `at` and `incarnation`: to older processes, its
copies are missing, and their writes drop them.
"""

_CLOCK = """
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
"""

READ = (
    _CLOCK
    + """
-- KEYS: hash, events and lease of the session, hash and lease of the user, hash and lease of the app
-- ARGV: token, seconds of a lease, after, limit or -1, the floors of the three
local function whole(part, lease, floor, events)
  local at = redis.call('HGET', part, 'at')
  if at and tonumber(at) >= tonumber(floor) then return redis.call('HGETALL', part) end
  if at then redis.call('DEL', part, events or part) end
  if tonumber(floor) == 1e18 then redis.call('DEL', lease) end
  return false
end
local function leased(lease)
  redis.call('SET', lease, now .. ':' .. ARGV[1], 'NX', 'EX', ARGV[2])
  return redis.call('GET', lease)
end

local head = whole(KEYS[1], KEYS[3], ARGV[5], KEYS[2])
local events, lease, fillable = {}, false, true
if head then
  local known = redis.call('HMGET', KEYS[1], 'first', 'revision', 'cut')
  local first, last = tonumber(known[1]), tonumber(known[2])
  local after, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
  local wanted = after
  if limit >= 0 then wanted = math.max(after, last - limit) end
  if last < after then
    -- The reader has seen more than this copy has.
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    head = false
  elseif wanted < first then
    -- More than is here; what was cut because it was too much would be cut again.
    head, fillable = false, known[3] ~= '1'
  elseif wanted < last then
    events = redis.call('LRANGE', KEYS[2], wanted - first, -1)
  end
end
if not head and fillable then lease = leased(KEYS[3]) end
local user = whole(KEYS[4], KEYS[5], ARGV[6])
local app = whole(KEYS[6], KEYS[7], ARGV[7])
return {now, head, events, lease, user, not user and leased(KEYS[5]), app, not app and leased(KEYS[7])}
"""
)

FILL = """
-- KEYS: like READ
-- ARGV: the leases of the three or '', seconds that a copy lives, then for each of the three the
-- number of its fields and values, and these, then the number of events and these
local at = 5
local function fill(part, lease, token)
  local right = token ~= '' and redis.call('GET', lease) == token
  local last = at + tonumber(ARGV[at])
  if right then
    -- First what is refused when memory is full: a script that has written is not stopped any more.
    redis.call('SET', lease, token)
    redis.call('DEL', lease, part)
    redis.call('HSET', part, 'at', string.match(token, '^%d+'))
    for i = at + 1, last, 2 do redis.call('HSET', part, ARGV[i], ARGV[i + 1]) end
    redis.call('PEXPIRE', part, ARGV[4])
  end
  at = last + 1
  return right
end
local filled = fill(KEYS[1], KEYS[3], ARGV[1])
fill(KEYS[4], KEYS[5], ARGV[2])
fill(KEYS[6], KEYS[7], ARGV[3])
if filled then
  redis.call('DEL', KEYS[2])
  for i = at + 1, at + tonumber(ARGV[at]) do redis.call('RPUSH', KEYS[2], ARGV[i]) end
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return 'done'
"""

EXTEND = (
    _CLOCK
    + """
-- KEYS: hash, events and lease of the session, then what else to drop
-- ARGV: incarnation, revision before, updated, expires, event, milliseconds that a copy lives, events and
-- bytes that it may have, then fields and values
local copy = redis.call('HMGET', KEYS[1], 'incarnation', 'revision', 'first', 'size')
local before = tonumber(ARGV[2])
if copy[1] == ARGV[1] and tonumber(copy[2]) == before then
  local size = tonumber(copy[4]) + #ARGV[5]
  if size > tonumber(ARGV[8]) then
    redis.call('DEL', unpack(KEYS))
    return now
  end
  redis.call('HSET', KEYS[1], 'at', now, 'revision', before + 1, 'updated_at', ARGV[3],
    'expires_at', ARGV[4], 'size', size)
  for i = 9, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
  redis.call('RPUSH', KEYS[2], ARGV[5])
  local first, most = tonumber(copy[3]), tonumber(ARGV[7])
  if before + 1 - first > most then
    redis.call('LTRIM', KEYS[2], -most, -1)
    redis.call('HSET', KEYS[1], 'first', before + 1 - most, 'cut', 1)
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
elseif copy[1] ~= ARGV[1] or tonumber(copy[2]) < before then
  redis.call('DEL', KEYS[1], KEYS[2])
end
redis.call('DEL', unpack(KEYS, 3))
return now
"""
)

DROP = (
    _CLOCK
    + """
redis.call('DEL', unpack(KEYS))
return now
"""
)
