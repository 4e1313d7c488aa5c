"""What Redis executes: each script is one atomic operation of `redis.py`, named after what it does.

KEYS are always session, events, sessions and state of a user, and then state and users of the app.
A cluster keeps the last two in another slot; there the fifth and last key is the user's outbox.
"""

from dataclasses import dataclass, field
from hashlib import sha1


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name that Redis keeps it under."""

    text: str
    brief: bool = False
    """Whether it is quickly done and says little, so that it can go together with others."""
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


_COMMON = """
local session, events, sessions, user, app, users = unpack(KEYS)
local outbox = nil
if not users then outbox, app = app, nil end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function live(now)
  local head = redis.call('HMGET', session, 'incarnation', 'revision', 'ttl', 'expires', 'listed')
  if not head[1] or (head[4] ~= '' and tonumber(head[4]) <= now) then return nil end
  return head
end

-- Write the pairs that follow their number in ARGV[at]; return where the next begin.
local function put(key, at)
  local last = at + 2 * tonumber(ARGV[at] or 0)
  for i = at + 1, last, 1000 do
    redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, last)))
  end
  return last + 1
end

-- An index lives as long as its last member.
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

-- Keep the indexes of the user's sessions and of the app's users as long as their longest entry.
local function settle(now)
  local last = trim(sessions, now)
  if users then
    local user_member = string.match(user, '{.-/(.-)}')
    if last then redis.call('ZADD', users, last, user_member)
    else redis.call('ZREM', users, user_member) end
    trim(users, now)
  end
end

-- Let the server drop the session in ttl seconds. It is listed for up to an hour longer than that, so
-- that the indexes are written once in a while and not by every append. Tell whether they were.
local function keep(ttl, listed)
  local now = clock()
  if ttl > 0 then
    redis.call('PEXPIRE', session, ttl * 1000)
    redis.call('PEXPIRE', events, ttl * 1000)
    if listed and tonumber(listed) >= now + ttl * 1000 then return 0 end
    listed = string.format('%.0f', now + (ttl + math.min(ttl, 3600)) * 1000)
  elseif listed then
    return 0
  else
    listed = 'inf'
  end
  redis.call('HSET', session, 'listed', listed)
  redis.call('ZADD', sessions, listed, string.match(session, '.*:(.*)'))
  settle(now)
  return 1
end

-- Write the state that starts at ARGV[at]: the session's, the user's, and the app's or what waits for it.
local function put_state(at, stamp)
  at = put(user, put(session, at))
  if app then
    put(app, at)
  else
    for i = at + 1, at + 2 * tonumber(ARGV[at] or 0), 2 do
      redis.call('HSET', outbox, ARGV[i], struct.pack('>d', stamp) .. ARGV[i + 1])
    end
  end
end

local function shared()
  local pending = outbox and redis.call('HGETALL', outbox) or {}
  return redis.call('HGETALL', user), app and redis.call('HGETALL', app) or {}, pending
end
"""

CREATE = Script(
    _COMMON
    + """
-- ARGV: incarnation, now, ttl, expires, then state of session, user and app, each behind its number of pairs
local now, ttl = tonumber(ARGV[2]), tonumber(ARGV[3])
local head = live(now)
if head and head[1] ~= ARGV[1] then return 'exists' end
if not head then
  redis.call('DEL', session, events)
  redis.call('HSET', session, 'incarnation', ARGV[1], 'revision', 0, 'ttl', ARGV[3], 'expires', ARGV[4],
    'updated', ARGV[2])
  put_state(5, now)
  keep(ttl, nil)
end
local user_state, app_state, pending = shared()
return {redis.call('HGETALL', session), user_state, app_state, pending, {}}
""",
    brief=True,
)

APPEND = Script(
    _COMMON
    + """
-- ARGV: incarnation, revision, now, timestamp (8 bytes) with event, then state as above, where there is any
local now = tonumber(ARGV[3])
local head = live(now)
if not head then return 'missing' end
if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] then return 'stale' end
local ttl, expires = tonumber(head[3]), head[4]
if ttl > 0 then
  expires = string.format('%.17g', math.max(tonumber(expires), now + ttl))
end
redis.call('RPUSH', events, ARGV[4])
redis.call('HSET', session, 'revision', ARGV[2] + 1, 'expires', expires,
  'updated', string.format('%.17g', struct.unpack('>d', ARGV[4])))
put_state(5, now)
return {head[3], expires, keep(ttl, head[5])}
""",
    brief=True,
)

APPEND_OWN = Script(
    """
-- What most appends are: they change no state but the session's own, and the indexes are right for a while.
-- KEYS: session, events; ARGV: incarnation, revision, now, timestamp (8 bytes) with event, pairs of state
local session, events = KEYS[1], KEYS[2]
local head = redis.call('HMGET', session, 'incarnation', 'revision', 'ttl', 'expires', 'listed')
local now = tonumber(ARGV[3])
if not head[1] or (head[4] ~= '' and tonumber(head[4]) <= now) then return 'missing' end
if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] then return 'stale' end
local ttl, expires = tonumber(head[3]), head[4]
if ttl > 0 then
  local time = redis.call('TIME')
  if not head[5] or tonumber(head[5]) < (time[1] + ttl) * 1000 + time[2] / 1000 then return 'relist' end
  expires = string.format('%.17g', math.max(tonumber(expires), now + ttl))
end
redis.call('RPUSH', events, ARGV[4])
redis.call('HSET', session, 'revision', ARGV[2] + 1, 'expires', expires,
  'updated', string.format('%.17g', struct.unpack('>d', ARGV[4])), unpack(ARGV, 5))
if ttl > 0 then
  redis.call('PEXPIRE', session, ttl * 1000)
  redis.call('PEXPIRE', events, ttl * 1000)
end
return {head[3], expires, 0}
""",
    brief=True,
)

LOAD = Script(
    _COMMON
    + """
-- ARGV: now, after, limit or -1, since or ''
local head = live(tonumber(ARGV[1]))
if not head then return 'missing' end
local last, first = tonumber(head[2]), tonumber(ARGV[2])
local limit, since = tonumber(ARGV[3]), tonumber(ARGV[4])
if limit >= 0 then first = math.max(first, last - limit) end
if since then
  local place = last
  while place > first do
    local from = math.max(first, place - 32)
    local batch = redis.call('LRANGE', events, from, place - 1)
    for i = #batch, 1, -1 do
      if struct.unpack('>d', batch[i]) < since then
        first = from + i
        break
      end
    end
    if first > from then break end
    place = from
  end
end
local user_state, app_state, pending = shared()
local log = first < last and redis.call('LRANGE', events, first, last - 1) or {}
return {redis.call('HGETALL', session), user_state, app_state, pending, log}
"""
)

LIST = Script(
    """
-- KEYS: sessions, state of the user and, where the server is not a cluster, of the app
-- ARGV: what the keys of the sessions begin with
local members = redis.call('ZRANGE', KEYS[1], 0, -1)
local found = {}
for i, member in ipairs(members) do
  found[i] = redis.call('HGETALL', ARGV[1] .. member)
end
return {members, found, redis.call('HGETALL', KEYS[2]), KEYS[3] and redis.call('HGETALL', KEYS[3]) or {}}
"""
)

DELETE = Script(
    _COMMON
    + """
redis.call('DEL', session, events)
redis.call('ZREM', sessions, string.match(session, '.*:(.*)'))
settle(clock())
return 'deleted'
"""
)

DELIVER = Script(
    """
-- On a cluster: bring app state from a user's outbox into the app's slot, unless it is newer there.
-- KEYS: state and stamps of the app; ARGV: pairs of a name and a stamp (8 bytes) with a value
for i = 1, #ARGV, 2 do
  local stamp = redis.call('HGET', KEYS[2], ARGV[i])
  local new = string.sub(ARGV[i + 1], 1, 8)
  if not stamp or struct.unpack('>d', stamp) <= struct.unpack('>d', new) then
    redis.call('HSET', KEYS[1], ARGV[i], string.sub(ARGV[i + 1], 9))
    redis.call('HSET', KEYS[2], ARGV[i], new)
  end
end
return 'delivered'
"""
)

SETTLE = Script(
    """
-- On a cluster: take what was delivered out of a user's outbox, unless it has been replaced since.
-- KEYS: outbox; ARGV: the pairs that were delivered
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 'settled'
"""
)

REGISTER = Script(
    """
-- On a cluster: list a user of the app for as long as its longest session lives.
-- KEYS: users of the app; ARGV: user, ttl
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = tonumber(ARGV[2])
local score = ttl > 0 and string.format('%.0f', now + (ttl + math.min(ttl, 3600)) * 1000) or 'inf'
redis.call('ZADD', KEYS[1], 'GT', score, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if last == 'inf' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], last) end
return 'registered'
"""
)
