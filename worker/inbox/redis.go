package inbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// DefaultRedisPrefix begins the names of an inbox's keys in Redis.
const DefaultRedisPrefix = "ringmaster:inbox:"

// DefaultRedisKeep is how long rows stay in Redis.
const DefaultRedisKeep = 30 * 24 * time.Hour

// RedisCommand sends one command to Redis and returns its reply: nil, a
// string, an int64, or a slice of these. With go-redis:
//
//	func(ctx context.Context, args ...any) (any, error) { return client.Do(ctx, args...).Result() }
type RedisCommand func(ctx context.Context, args ...any) (any, error)

// RedisOptions change how an inbox in Redis works. The zero value is good.
type RedisOptions struct {
	// Prefix begins the names of the inbox's keys; default DefaultRedisPrefix.
	// In a cluster it holds the hash tag that the effects' keys have, since a
	// script's keys must lie in one slot: "{accounts}:inbox:".
	Prefix string
	// Keep is for how long a row stays after it was last needed; then Redis
	// removes it. It has to be longer than the engine's task lifetime (24 h by
	// default) and the longest life of a run, stalled ones included, together.
	// At least 1 minute; default DefaultRedisKeep.
	Keep time.Duration
	// LookupTimeout bounds the attempts to find out what became of a script
	// whose answer was lost; default 10 s. The task's deadline does not shorten
	// it.
	LookupTimeout time.Duration
}

// Redis is an inbox for handlers whose state is in Redis. Their effect is a Lua
// script that runs atomically with the writing of the task's key; duplicates,
// compensations and generations are treated as the package's comment says.
//
// Redis does not roll scripts back. So an effect looks first, refuses where it
// must with "return reject(code, message)", and only then writes. One that
// raises an error may have written something: the outcome is unknown, with code
// CodeBroken, the effect is not run again, and its compensation runs.
//
// Key and effect are as durable as the server makes them: both are lost
// together, with what was answered, where it forgets (appendfsync everysec, a
// failover to a replica that lags behind).
//
// It is safe for concurrent use.
type Redis struct {
	command RedisCommand
	opts    RedisOptions
}

// Effect is what a handler does in Redis.
type Effect struct {
	// Script is the body of a Lua function of KEYS, ARGV and reject. What it
	// returns is the handler's output, encoded as JSON by cjson (nil is null).
	// "return reject(code, message)" is a final failure without effect, and
	// "return reject(code, message, true)" one that is retried; nothing may
	// have been written by then. Scripts are constants; what varies is in Keys
	// and Args.
	Script string
	// Keys are the keys that the script uses, as KEYS.
	Keys []string
	// Args are strings or numbers, as ARGV.
	Args []any
}

// CodeBroken is the code of an effect that raised an error.
const CodeBroken = "effect_broken"

// NewRedis returns the inbox of a Redis server.
func NewRedis(command RedisCommand, o RedisOptions) (*Redis, error) {
	if command == nil {
		return nil, errors.New("inbox: command: is required")
	}
	if o.Prefix == "" {
		o.Prefix = DefaultRedisPrefix
	}
	if o.Keep == 0 {
		o.Keep = DefaultRedisKeep
	}
	if o.Keep < time.Minute {
		return nil, fmt.Errorf("inbox: Keep: must be at least 1 minute, is %v", o.Keep)
	}
	if o.LookupTimeout <= 0 {
		o.LookupTimeout = 10 * time.Second
	}
	return &Redis{command: command, opts: o}, nil
}

// HandleRedis registers a typed handler whose effect happens once. fn only says
// what the effect is; it may be called more often.
func HandleRedis[In, Out any](w *worker.Worker, b *Redis, task definitions.Task[In, Out],
	fn func(ctx context.Context, in In) (Effect, error)) {
	w.HandleTask(task, func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := worker.Decode[In](payload)
		if err != nil {
			return nil, err
		}
		e, err := fn(ctx, in)
		if err != nil {
			return nil, err
		}
		return b.Do(ctx, e)
	})
}

// Do performs an effect once for the task of ctx (see [worker.TaskFrom]) and
// returns its output, or the stored output of the time that it was performed.
func (b *Redis) Do(ctx context.Context, e Effect) ([]byte, error) {
	info := worker.TaskFrom(ctx)
	if info.RunID == "" {
		return nil, worker.Final(CodeNoTask, errors.New("inbox: the context belongs to no task"))
	}
	args := b.evaluation(&info, e)
	reply, err := b.command(ctx, args...)
	if err != nil && strings.Contains(err.Error(), "Error compiling script") {
		return nil, worker.NoEffect(worker.Final(CodeDatabase, fmt.Errorf("inbox: %w", err)))
	}
	if err != nil {
		// Also where the server answered that it did nothing: clients repeat
		// commands by themselves, and an earlier one may have been carried out.
		reply, err = b.repeat(ctx, args, err)
	}
	if err != nil {
		return nil, worker.Unknown(CodeCommit, fmt.Errorf("inbox: running the script: %w", err))
	}
	return interpret(&info, reply)
}

// evaluation is the command for an effect.
func (b *Redis) evaluation(info *worker.TaskInfo, e Effect) []any {
	own := b.opts.Prefix + key(info, info.Phase)
	undone, undoing := own, "0"
	if p := undoes(info); p != 0 {
		undone, undoing = b.opts.Prefix+key(info, p), "1"
	}
	tokens := inOrder(info.Tokens)
	args := []any{"EVAL", redisPrelude + e.Script + redisRest, 2 + len(tokens) + len(e.Keys), own, undone}
	for _, t := range tokens {
		args = append(args, b.opts.Prefix+"token/"+t.Name)
	}
	for _, k := range e.Keys {
		args = append(args, k)
	}
	args = append(args, strconv.FormatUint(uint64(info.Generation), 10), undoing, b.opts.Keep.Milliseconds(), len(tokens))
	for _, t := range tokens {
		args = append(args, strconv.FormatUint(t.Token, 10))
	}
	return append(args, e.Args...)
}

// repeat sends a command again whose answer was lost. If the first one was
// carried out, the answer is what is stored.
func (b *Redis) repeat(ctx context.Context, args []any, lost error) (any, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.opts.LookupTimeout)
	defer cancel()
	var last error
	for try := 0; pause(ctx, try); try++ {
		reply, err := b.command(ctx, args...)
		if err == nil {
			return reply, nil
		}
		last = err
	}
	return nil, errors.Join(lost, last)
}

// interpret turns the script's answer into the handler's.
func interpret(info *worker.TaskInfo, reply any) ([]byte, error) {
	var f [4]string
	parts, _ := reply.([]any)
	for i := range min(len(parts), len(f)) {
		f[i], _ = parts[i].(string)
	}
	switch f[0] {
	case "rejected":
		if f[3] == "1" {
			return nil, worker.NoEffect(worker.Retryable(f[1], errors.New(f[2])))
		}
		return nil, worker.NoEffect(worker.Final(f[1], errors.New(f[2])))
	case "stale":
		i, _ := strconv.Atoi(f[1])
		highest, err := strconv.ParseUint(f[2], 10, 64)
		if tokens := inOrder(info.Tokens); err == nil && i >= 1 && i <= len(tokens) {
			return nil, staleToken(tokens[i-1], highest)
		}
	case open:
		return nil, &worker.Error{Outcome: protocol.OutcomeUnknown, Code: CodeBroken,
			Err: fmt.Errorf("inbox: the effect raised an error and may have written something: %s", f[2])}
	case done, void, blocked:
		generation, err := strconv.ParseInt(f[1], 10, 64)
		if err == nil {
			return row{Generation: generation, State: f[0], Result: []byte(f[2])}.answer(info)
		}
	}
	return nil, worker.Unknown(CodeCommit, fmt.Errorf("inbox: unexpected answer of the script: %.200v", reply))
}

// The script is the prelude, the body of the effect, and the rest. Its answer
// is state, generation and result of the row; or what was rejected.
const (
	redisPrelude = `
local rejected = nil
local function reject(code, message, again)
	rejected = {tostring(code or ''), tostring(message or ''), again and '1' or '0'}
	return rejected
end
local function effect(KEYS, ARGV)
`
	redisRest = `
end
local own, undone = KEYS[1], KEYS[2]
local generation, undoing, keep, tokens = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local function put(key, state, result)
	redis.call('HSET', key, 'state', state, 'generation', generation, 'result', result)
	redis.call('PEXPIRE', key, keep)
end
local there = redis.call('HMGET', own, 'state', 'generation', 'result')
if there[1] then
	redis.call('PEXPIRE', own, keep)
	return there
end
for i = 1, tokens do
	local highest = redis.call('GET', KEYS[2 + i])
	if highest and tonumber(highest) > tonumber(ARGV[4 + i]) then
		return {'stale', tostring(i), highest}
	end
end
for i = 1, tokens do redis.call('SET', KEYS[2 + i], ARGV[4 + i], 'PX', keep) end
if undoing then
	local state = redis.call('HGET', undone, 'state')
	if not state then
		put(undone, 'blocked', '')
	end
	if not state or state == 'blocked' then
		put(own, 'null', 'null')
		return {'null', generation, 'null'}
	end
	redis.call('PEXPIRE', undone, keep)
end
put(own, 'open', '')
local keys, args = {}, {}
for i = 3 + tokens, #KEYS do keys[i - 2 - tokens] = KEYS[i] end
for i = 5 + tokens, #ARGV do args[i - 4 - tokens] = ARGV[i] end
local ok, out = pcall(effect, keys, args)
if ok and rejected and out == rejected then
	redis.call('DEL', own)
	return {'rejected', rejected[1], rejected[2], rejected[3]}
end
if ok then
	if out == nil then out = cjson.null end
	ok, out = pcall(cjson.encode, out)
end
if not ok then
	if type(out) == 'table' then out = out.err or 'an error that is a table' end
	put(own, 'open', tostring(out))
	return {'open', generation, tostring(out)}
end
put(own, 'done', out)
return {'done', generation, out}
`
)
