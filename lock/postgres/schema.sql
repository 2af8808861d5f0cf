-- What follows, as a whole. A later version makes itself of an earlier one.
CREATE TABLE {s}.lease_version (version int NOT NULL);
INSERT INTO {s}.lease_version VALUES (1);

CREATE TABLE {s}.lease_sessions (
	id      text PRIMARY KEY,
	owner   text NOT NULL,
	ttl     interval NOT NULL,
	opened  timestamptz NOT NULL,
	expires timestamptz NOT NULL
);
CREATE INDEX lease_sessions_expires ON {s}.lease_sessions (expires);

CREATE TABLE {s}.leases (
	name    text PRIMARY KEY,
	session text NOT NULL REFERENCES {s}.lease_sessions ON DELETE CASCADE,
	token   bigint NOT NULL,
	since   timestamptz NOT NULL
);
CREATE INDEX leases_session ON {s}.leases (session);

CREATE TABLE {s}.lease_waiters (
	name    text NOT NULL,
	ticket  bigint NOT NULL,
	session text NOT NULL REFERENCES {s}.lease_sessions ON DELETE CASCADE,
	PRIMARY KEY (name, ticket),
	UNIQUE (session, name)
);

-- Tokens and tickets of all names.
CREATE SEQUENCE {s}.lease_tokens AS bigint;

-- What is granted must outlive a crash of the server, whatever its default; and
-- every statement of a function must see what others have committed before it.
CREATE FUNCTION {s}.lease_durably() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE 'leases need the isolation level read committed, not %', current_setting('transaction_isolation');
	END IF;
	IF current_setting('synchronous_commit') = 'off' THEN
		PERFORM set_config('synchronous_commit', 'on', true);
	END IF;
END $$;

-- One at a time for each name; until the end of the transaction.
CREATE FUNCTION {s}.lease_alone(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM {s}.lease_durably();
	PERFORM pg_advisory_xact_lock(hashtextextended('{c}' || p_name, 20160208));
END $$;

-- Tells the first of those who wait for a name to ask again.
CREATE FUNCTION {s}.lease_wake(p_name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE first text;
BEGIN
	SELECT w.session INTO first FROM {s}.lease_waiters w JOIN {s}.lease_sessions s ON s.id = w.session
	WHERE w.name = p_name AND s.expires > clock_timestamp() ORDER BY w.ticket LIMIT 1;
	IF FOUND THEN
		PERFORM pg_notify('{c}', 'wake ' || first || ' ' || p_name);
	END IF;
END $$;

-- What a session itself gives up it need not be told: transactions that notify
-- commit one after the other in the whole server.
CREATE FUNCTION {s}.lease_leaving(p_session text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('ringmaster.leaving', p_session, true);
END $$;

-- Whoever ends a lease or a session, be it by hand: its holder is told, and the next.
CREATE FUNCTION {s}.lease_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('ringmaster.leaving', true) IS DISTINCT FROM OLD.session THEN
		PERFORM pg_notify('{c}', 'lost ' || OLD.session || ' ' || OLD.name || ' ' || OLD.token);
	END IF;
	PERFORM {s}.lease_wake(OLD.name);
	RETURN NULL;
END $$;
CREATE TRIGGER lease_removed AFTER DELETE ON {s}.leases FOR EACH ROW EXECUTE FUNCTION {s}.lease_removed();

CREATE FUNCTION {s}.lease_session_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('ringmaster.leaving', true) IS DISTINCT FROM OLD.id THEN
		PERFORM pg_notify('{c}', 'ended ' || OLD.id);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER lease_session_removed AFTER DELETE ON {s}.lease_sessions FOR EACH ROW EXECUTE FUNCTION {s}.lease_session_removed();

-- Opens a session, and removes some that have expired.
CREATE FUNCTION {s}.lease_open(p_session text, p_owner text, p_ttl interval) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM {s}.lease_durably();
	DELETE FROM {s}.lease_sessions WHERE id IN (
		SELECT id FROM {s}.lease_sessions WHERE expires <= clock_timestamp() LIMIT 100 FOR UPDATE SKIP LOCKED);
	INSERT INTO {s}.lease_sessions VALUES (p_session, p_owner, p_ttl, clock_timestamp(), clock_timestamp() + p_ttl);
END $$;

-- Renews a session; false if there is none that lives.
CREATE FUNCTION {s}.lease_renew(p_session text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM {s}.lease_durably();
	UPDATE {s}.lease_sessions SET expires = clock_timestamp() + ttl WHERE id = p_session AND expires > clock_timestamp();
	RETURN FOUND;
END $$;

-- Takes a lease, or a place among those who wait for it. The state is granted
-- (with a token), held, waiting (with the milliseconds after which to ask again)
-- or lost.
CREATE FUNCTION {s}.lease_take(p_session text, p_name text, p_wait boolean,
	OUT state text, OUT token bigint, OUT millis bigint) LANGUAGE plpgsql AS $$
DECLARE
	holder record;
	first  text;
	free   boolean;
BEGIN
	PERFORM {s}.lease_alone(p_name);
	PERFORM 1 FROM {s}.lease_sessions WHERE id = p_session AND expires > clock_timestamp() FOR KEY SHARE;
	IF NOT FOUND THEN
		state := 'lost';
		RETURN;
	END IF;
	SELECT l.session, l.token, s.expires INTO holder FROM {s}.leases l JOIN {s}.lease_sessions s ON s.id = l.session WHERE l.name = p_name;
	free := NOT FOUND;
	IF NOT free AND holder.session = p_session THEN
		state := 'granted';
		token := holder.token;
		DELETE FROM {s}.lease_waiters WHERE session = p_session AND name = p_name;
		RETURN;
	END IF;
	IF NOT free AND holder.expires <= clock_timestamp() THEN
		-- A renewal may be under way: only who locks the row may call it over.
		PERFORM 1 FROM {s}.lease_sessions WHERE id = holder.session AND expires <= clock_timestamp() FOR UPDATE SKIP LOCKED;
		IF FOUND THEN
			DELETE FROM {s}.lease_sessions WHERE id = holder.session;
			free := true;
		END IF;
	END IF;
	IF free THEN
		SELECT w.session INTO first FROM {s}.lease_waiters w JOIN {s}.lease_sessions s ON s.id = w.session
		WHERE w.name = p_name AND s.expires > clock_timestamp() ORDER BY w.ticket LIMIT 1;
		IF NOT FOUND OR first = p_session THEN
			DELETE FROM {s}.lease_waiters WHERE session = p_session AND name = p_name;
			INSERT INTO {s}.leases VALUES (p_name, p_session, nextval('{q}.lease_tokens'), clock_timestamp())
			RETURNING leases.token INTO token;
			state := 'granted';
			RETURN;
		END IF;
	END IF;
	IF NOT p_wait THEN
		state := 'held';
		RETURN;
	END IF;
	state := 'waiting';
	INSERT INTO {s}.lease_waiters AS w VALUES (p_name, nextval('{q}.lease_tokens'), p_session) ON CONFLICT (session, name) DO NOTHING;
	SELECT ceil(1000 * extract(epoch FROM min(s.expires) - clock_timestamp()))::bigint INTO millis FROM {s}.lease_sessions s
	WHERE s.id IN (SELECT l.session FROM {s}.leases l WHERE l.name = p_name
		UNION ALL SELECT w.session FROM {s}.lease_waiters w WHERE w.name = p_name AND w.session <> p_session
			AND w.ticket < (SELECT m.ticket FROM {s}.lease_waiters m WHERE m.session = p_session AND m.name = p_name)
			AND EXISTS (SELECT 1 FROM {s}.lease_sessions x WHERE x.id = w.session AND x.expires > clock_timestamp()));
END $$;

-- Gives a lease back; false if it is not held under that token.
CREATE FUNCTION {s}.lease_release(p_session text, p_name text, p_token bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM {s}.lease_alone(p_name);
	PERFORM {s}.lease_leaving(p_session);
	DELETE FROM {s}.leases WHERE name = p_name AND session = p_session AND token = p_token;
	RETURN FOUND;
END $$;

-- Gives back the lease of a name and the place among those who wait.
CREATE FUNCTION {s}.lease_forget(p_session text, p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM {s}.lease_alone(p_name);
	PERFORM {s}.lease_leaving(p_session);
	DELETE FROM {s}.leases WHERE name = p_name AND session = p_session;
	DELETE FROM {s}.lease_waiters WHERE name = p_name AND session = p_session;
	IF FOUND THEN
		PERFORM {s}.lease_wake(p_name);
	END IF;
END $$;

-- Ends a session.
CREATE FUNCTION {s}.lease_end(p_session text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE n text;
BEGIN
	PERFORM {s}.lease_durably();
	PERFORM {s}.lease_leaving(p_session);
	FOR n IN SELECT name FROM {s}.leases WHERE session = p_session
		UNION SELECT name FROM {s}.lease_waiters WHERE session = p_session ORDER BY 1 LOOP
		PERFORM {s}.lease_forget(p_session, n);
	END LOOP;
	DELETE FROM {s}.lease_sessions WHERE id = p_session;
END $$;
