"""Lua scripts. Each is one atomic operation of the store.

Keys, with percent-encoded ids so that no id can form another's key:

    <prefix>:{<app>/<user>}:session:<id>   hash: the session, see below
    <prefix>:{<app>/<user>}:events:<id>    list: its events, each after its timestamp (8 bytes)
    <prefix>:{<app>/<user>}:sessions       sorted set: ids of the user's sessions by `indexed_until`
    <prefix>:{<app>/<user>}:state          hash: the user's state
    <prefix>:{<app>/<user>}:outbox         hash: on a cluster, app state to deliver to the app's slot,
                                           each value after the time of its write (8 bytes)
    <prefix>:{<app>}:users                 sorted set: users of the app by their last `indexed_until`
    <prefix>:{<app>}:state                 hash: the app's state
    <prefix>:{<app>}:state_times           hash: on a cluster, the time at which each key was written

Fields of a session:

    incarnation, revision, ttl    as in `store.py`
    updated_at, expires_at        epoch seconds; `expires_at` is empty if the session never expires
    indexed_until                 epoch milliseconds until which the indexes list the session, or `inf`
    state:<key>                   the session's state
    format                        missing in this format, the first

A session of another format is refused and stays as it is. So a version that changes the format of sessions writes the
number of the new one. If it changes a key that sessions share, it gives that key a new name.

The braces put all keys of a user into one slot of a cluster. All keys of a session have a TTL in Redis, and an
index expires with its last entry, so expired sessions leave nothing.
"""

_FORMAT = """
-- Return an error if a newer version has written the session.
local function newer(session)
  local format = redis.call('HGET', session, 'format')
  return format and redis.error_reply('NEWER a newer version of this program wrote the session (format ' .. format ..
    ', this one knows 1): upgrade the program')
end
"""

_INDEXES = """
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The indexes list a session for up to an hour longer than it lives, so that not every append writes them.
local function last_listing(ttl, now)
  if ttl == 0 then return 'inf' end
  return string.format('%.0f', now + (ttl + math.min(ttl, 3600)) * 1000)
end

-- Let an index live as long as its last entry, and return when that is over.
local function trim(index, now)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2]
  if last == 'inf' then
    redis.call('PERSIST', index)
  elseif last then
    redis.call('PEXPIREAT', index, last)
  end
  return last
end
"""

_COMMON = (
    _FORMAT
    + _INDEXES
    + """
-- KEYS: session, events, sessions and state of the user, then state and users of the app.
-- On a cluster, where these two are in another slot, the outbox of the user instead.
local session, events, sessions, user_state, app_state, users = unpack(KEYS)
local outbox
if not users then outbox, app_state = app_state, nil end

local refused = newer(session)
if refused then return refused end

-- Return incarnation, revision, ttl, expires_at and indexed_until of a session that has not expired.
local function find(now)
  local found = redis.call('HMGET', session, 'incarnation', 'revision', 'ttl', 'expires_at', 'indexed_until')
  if found[1] and (found[4] == '' or tonumber(found[4]) > now) then return found end
end

-- Write the pairs that follow their number in ARGV[at]; return where the next begin.
local function put(key, at)
  local last = at + 2 * tonumber(ARGV[at])
  for i = at + 1, last, 1000 do
    redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, last)))
  end
  return last + 1
end

-- Write the state of session, user and app, which begins at ARGV[at].
local function put_state(at, now)
  at = put(user_state, put(session, at))
  if app_state then
    put(app_state, at)
  else
    for i = at + 1, at + 2 * tonumber(ARGV[at]), 2 do
      redis.call('HSET', outbox, ARGV[i], struct.pack('>d', now) .. ARGV[i + 1])
    end
  end
end

local function trim_indexes(now)
  local last = trim(sessions, now)
  if users then
    local user = string.match(user_state, '{.-/(.-)}')
    if last then redis.call('ZADD', users, last, user) else redis.call('ZREM', users, user) end
    trim(users, now)
  end
end

-- Let the session live for ttl seconds from now, and return whether that took a write of the indexes.
local function keep(ttl, indexed_until)
  local now = milliseconds()
  if ttl > 0 then
    redis.call('PEXPIRE', session, ttl * 1000)
    redis.call('PEXPIRE', events, ttl * 1000)
  end
  if indexed_until and (ttl == 0 or tonumber(indexed_until) >= now + ttl * 1000) then return 0 end
  indexed_until = last_listing(ttl, now)
  redis.call('HSET', session, 'indexed_until', indexed_until)
  redis.call('ZADD', sessions, indexed_until, string.match(session, '.*:(.*)'))
  trim_indexes(now)
  return 1
end

local function with_state(log)
  return {
    redis.call('HGETALL', session), redis.call('HGETALL', user_state),
    app_state and redis.call('HGETALL', app_state) or {}, outbox and redis.call('HGETALL', outbox) or {}, log
  }
end
"""
)

CREATE = (
    _COMMON
    + """
-- ARGV: incarnation, now, ttl, expires_at, then state
local now = tonumber(ARGV[2])
local found = find(now)
if found and found[1] ~= ARGV[1] then return 'exists' end
if not found then
  redis.call('DEL', session, events)
  redis.call('HSET', session, 'incarnation', ARGV[1], 'revision', 0, 'ttl', ARGV[3], 'expires_at', ARGV[4],
    'updated_at', ARGV[2])
  put_state(5, now)
  keep(tonumber(ARGV[3]), nil)
end
return with_state({})
"""
)

APPEND = (
    _COMMON
    + """
-- ARGV: incarnation, revision, now, timestamp (8 bytes) with event, then state
local now = tonumber(ARGV[3])
local found = find(now)
if not found then return 'missing' end
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then return 'stale' end
local ttl, expires_at = tonumber(found[3]), found[4]
if ttl > 0 then expires_at = string.format('%.17g', math.max(tonumber(expires_at), now + ttl)) end
redis.call('RPUSH', events, ARGV[4])
redis.call('HSET', session, 'revision', ARGV[2] + 1, 'expires_at', expires_at,
  'updated_at', string.format('%.17g', struct.unpack('>d', ARGV[4])))
put_state(5, now)
return {ttl, expires_at, keep(ttl, found[5])}
"""
)

LOAD = (
    _COMMON
    + """
-- ARGV: now, revision after which to begin, limit or -1, since or ''
local found = find(tonumber(ARGV[1]))
if not found then return 'missing' end
local last, first = tonumber(found[2]), tonumber(ARGV[2])
local limit, since = tonumber(ARGV[3]), tonumber(ARGV[4])
if limit >= 0 then first = math.max(first, last - limit) end
-- Look from the end for an event before `since`.
local before = last
while since and before > first do
  local from = math.max(first, before - 32)
  local batch = redis.call('LRANGE', events, from, before - 1)
  before = from
  for i = #batch, 1, -1 do
    if struct.unpack('>d', batch[i]) < since then
      first, since = from + i, nil
      break
    end
  end
end
return with_state(first < last and redis.call('LRANGE', events, first, last - 1) or {})
"""
)

REWRITE = """
-- KEYS: a list or a hash, and the session; ARGV: its incarnation, or '' for state that sessions share, the
-- commands that read and write, then indexes or fields, each with its old and its new value
if ARGV[1] ~= '' and redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[1] then return end
for i = 4, #ARGV, 3 do
  if redis.call(ARGV[2], KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call(ARGV[3], KEYS[1], ARGV[i], ARGV[i + 2])
  end
end
"""

LIST = (
    _FORMAT
    + """
-- KEYS: sessions and state of the user, then, unless on a cluster, state of the app
-- ARGV: what the keys of the user's sessions begin with
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
local found = {}
for i, id in ipairs(ids) do
  local refused = newer(ARGV[1] .. id)
  if refused then return refused end
  found[i] = redis.call('HGETALL', ARGV[1] .. id)
end
return {ids, found, redis.call('HGETALL', KEYS[2]), KEYS[3] and redis.call('HGETALL', KEYS[3]) or {}}
"""
)

DELETE = (
    _COMMON
    + """
redis.call('DEL', session, events)
redis.call('ZREM', sessions, string.match(session, '.*:(.*)'))
trim_indexes(milliseconds())
"""
)

ERASE = (
    _FORMAT
    + """
-- KEYS: sessions, state and outbox of the user, then, unless on a cluster, users of the app
-- ARGV: what the keys of the user begin with, user
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, id in ipairs(ids) do
  local refused = newer(ARGV[1] .. 'session:' .. id)
  if refused then return refused end
end
local removed = 0
for _, id in ipairs(ids) do
  removed = removed + redis.call('UNLINK', ARGV[1] .. 'session:' .. id)
  redis.call('UNLINK', ARGV[1] .. 'events:' .. id)
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
if KEYS[4] then redis.call('ZREM', KEYS[4], ARGV[2]) end
return removed
"""
)

# On a cluster, a script is limited to one slot, and app state is in another slot than users. So an append
# writes app state to an outbox of its user, and the writer or a later reader delivers it.

DELIVER = """
-- KEYS: state and state_times of the app; ARGV: keys of an outbox and its values
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[2], ARGV[i])
  local written = string.sub(ARGV[i + 1], 1, 8)
  if not known or struct.unpack('>d', known) <= struct.unpack('>d', written) then
    redis.call('HSET', KEYS[1], ARGV[i], string.sub(ARGV[i + 1], 9))
    redis.call('HSET', KEYS[2], ARGV[i], written)
  end
end
"""

DELIVERED = """
-- KEYS: outbox; ARGV: what was delivered; what has been replaced since stays
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
"""

REGISTER = (
    _INDEXES
    + """
-- KEYS: users of the app; ARGV: user, ttl of a session
local now = milliseconds()
redis.call('ZADD', KEYS[1], 'GT', last_listing(tonumber(ARGV[2]), now), ARGV[1])
trim(KEYS[1], now)
"""
)
