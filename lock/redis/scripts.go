package redis

import "github.com/redis/go-redis/v9"

// prelude is what all scripts share. Keys below the prefix P:
//
//	sessions      sorted set: session, the millisecond in which it expires
//	owners        hash: session, its owner
//	held:SESSION  hash: the names it holds
//	waits:SESSION set: the names it waits for
//	lease:NAME    "SESSION NONCE TOKEN"; the nonce is of the attempt to take it
//	wait:NAME     sorted set: session, its ticket
//	token         the last token or ticket
//
// Notes on the channel P .. "notes" are "wake SESSION NAME", "free NAME",
// "lost SESSION NAME TOKEN" and "ended SESSION".
const prelude = `
local P = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function expires(id) return tonumber(redis.call('ZSCORE', P..'sessions', id) or 0) end
local function alive(id) return expires(id) > now end
local function lease(name)
	local v = redis.call('GET', P..'lease:'..name)
	if not v then return nil end
	local id, nonce, token = string.match(v, '^(%S+) (%S+) (%d+)$')
	return {id = id, nonce = nonce, token = token}
end
local function note(text) redis.call('PUBLISH', P..'notes', text) end
local function first(name)
	while true do
		local id = redis.call('ZRANGE', P..'wait:'..name, 0, 0)[1]
		if not id or alive(id) then return id end
		redis.call('ZREM', P..'wait:'..name, id)
		redis.call('SREM', P..'waits:'..id, name)
	end
end
local function wake(name)
	if redis.call('EXISTS', P..'lease:'..name) == 1 then return end
	local id = first(name)
	if id then note('wake '..id..' '..name) end
	note('free '..name)
end
local function unlock(name, l)
	redis.call('DEL', P..'lease:'..name)
	redis.call('HDEL', P..'held:'..l.id, name)
	note('lost '..l.id..' '..name..' '..l.token)
	wake(name)
end
local function leave(id, name)
	if redis.call('ZREM', P..'wait:'..name, id) == 1 then
		redis.call('SREM', P..'waits:'..id, name)
		wake(name)
	end
end
local function finish(id)
	local known = redis.call('ZREM', P..'sessions', id)
	for _, name in ipairs(redis.call('SMEMBERS', P..'waits:'..id)) do leave(id, name) end
	for _, name in ipairs(redis.call('HKEYS', P..'held:'..id)) do
		local l = lease(name)
		if l and l.id == id then unlock(name, l) end
	end
	redis.call('DEL', P..'held:'..id, P..'waits:'..id)
	redis.call('HDEL', P..'owners', id)
	if known == 1 then note('ended '..id) end
end
local function begin(id, owner, ttl)
	for _, old in ipairs(redis.call('ZRANGEBYSCORE', P..'sessions', '-inf', now, 'LIMIT', 0, 20)) do finish(old) end
	redis.call('ZADD', P..'sessions', now + ttl, id)
	redis.call('HSET', P..'owners', id, owner)
end
local function grant(id, name, nonce, token)
	redis.call('SET', P..'lease:'..name, id..' '..nonce..' '..token)
	redis.call('HSET', P..'held:'..id, name, 1)
end
local function atleast(token)
	if tonumber(redis.call('GET', P..'token') or 0) < tonumber(token) then redis.call('SET', P..'token', token) end
end
`

var (
	// openScript: session, owner, TTL in milliseconds.
	openScript = redis.NewScript(prelude + `
begin(ARGV[1], ARGV[2], tonumber(ARGV[3]))
return 1`)

	// renewScript: session, TTL. 0: there is no such session.
	renewScript = redis.NewScript(prelude + `
if not alive(ARGV[1]) then
	finish(ARGV[1])
	return 0
end
redis.call('ZADD', P..'sessions', 'XX', now + tonumber(ARGV[2]), ARGV[1])
return 1`)

	// joinScript opens a session on a node that does not know it, with what it
	// holds on others: session, owner, TTL, and name, nonce and token of each
	// lease. It returns the names that were free.
	joinScript = redis.NewScript(prelude + `
begin(ARGV[1], ARGV[2], tonumber(ARGV[3]))
local got = {}
for i = 4, #ARGV, 3 do
	local name, nonce, token = ARGV[i], ARGV[i+1], ARGV[i+2]
	local l = lease(name)
	if l and not alive(l.id) then
		finish(l.id)
		l = lease(name)
	end
	if not l then
		grant(ARGV[1], name, nonce, token)
		atleast(token)
		got[#got+1] = name
	end
end
return got`)

	// takeScript: session, name, nonce, whether to wait. It returns the state
	// (granted, held, waiting, lost), the token, and the milliseconds after which
	// what is in the way may have expired.
	takeScript = redis.NewScript(prelude + `
local id, name, nonce = ARGV[1], ARGV[2], ARGV[3]
if not alive(id) then
	finish(id)
	return {'lost', '0', 0}
end
local l = lease(name)
if l and l.id ~= id and not alive(l.id) then
	finish(l.id)
	l = lease(name)
end
if l and l.id == id then
	grant(id, name, nonce, l.token)
	return {'granted', l.token, 0}
end
local head = first(name)
if not l and (not head or head == id) then
	redis.call('ZREM', P..'wait:'..name, id)
	redis.call('SREM', P..'waits:'..id, name)
	redis.call('INCR', P..'token')
	local token = redis.call('GET', P..'token')
	grant(id, name, nonce, token)
	return {'granted', token, 0}
end
local soonest = nil
local function way(other)
	if other and other ~= id then
		local e = expires(other)
		if e > 0 and (not soonest or e < soonest) then soonest = e end
	end
end
if l then way(l.id) end
local state = 'held'
if ARGV[4] == '1' then
	state = 'waiting'
	if not redis.call('ZSCORE', P..'wait:'..name, id) then
		redis.call('ZADD', P..'wait:'..name, redis.call('INCR', P..'token'), id)
		redis.call('SADD', P..'waits:'..id, name)
	end
	for _, other in ipairs(redis.call('ZRANGE', P..'wait:'..name, 0, redis.call('ZRANK', P..'wait:'..name, id))) do way(other) end
end
return {state, '0', math.max((soonest or now) - now, 0)}`)

	// raiseScript writes a token back: session, name, nonce, token. 0: the lease
	// is not held here.
	raiseScript = redis.NewScript(prelude + `
local l = lease(ARGV[2])
if not l or l.id ~= ARGV[1] or l.nonce ~= ARGV[3] or not alive(ARGV[1]) then return 0 end
grant(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
atleast(ARGV[4])
return 1`)

	// releaseScript: session, name, nonce. 0: the lease is not held here.
	releaseScript = redis.NewScript(prelude + `
local l = lease(ARGV[2])
if not l or l.id ~= ARGV[1] or l.nonce ~= ARGV[3] then return 0 end
unlock(ARGV[2], l)
return 1`)

	// forgetScript gives back a lease, whatever its nonce, and a place: session, name.
	forgetScript = redis.NewScript(prelude + `
local l = lease(ARGV[2])
if l and l.id == ARGV[1] then unlock(ARGV[2], l) end
leave(ARGV[1], ARGV[2])
return 1`)

	// endScript: session.
	endScript = redis.NewScript(prelude + `
finish(ARGV[1])
return 1`)
)
