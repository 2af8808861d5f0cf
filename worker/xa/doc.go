// Package xa makes a database a participant of two-phase commits: a handler
// writes its SQL, and what it wrote is committed or rolled back as the run
// decides, together with what the other participants did.
//
// # How it goes
//
// [Handle] registers the handlers of a participant's three tasks.
//
// Prepare takes a connection of its own and, on it, a lock of the session under
// the branch's name, so that duplicates wait for each other. It notes run and
// step in the table of votes, begins a transaction, runs the handler, writes the
// branch's row, and has the database prepare: from then on the database holds
// the branch through every crash, whoever dies. Last it writes the vote beside
// the note, and only then answers it. A duplicate answers the vote that is
// written. A branch that was prepared but whose vote was not written was never
// answered; it is rolled back and done anew. A handler that has written nothing
// has its transaction ended at once, and votes read-only.
//
// Commit and abort name the branch, and any connection of any worker ends it.
// The branch's row came into being with its commit, so it proves one. A commit
// that finds neither branch nor row, but a vote, finds that somebody else has
// rolled back; it fails with code "heuristic_rollback". An abort that finds the
// row fails with code "heuristic_commit". The run records both and shows them.
// An abort ahead of its prepare is noted, and the prepare, when it comes, fails
// finally with code "suspended".
//
// A participant that is alone in its run has no prepare: its commit says so, and
// runs the handler, in one transaction with the row. Any other commit that finds
// no note fails with code "heuristic_rollback": the database has forgotten.
//
// The name of a branch (the gid) is the namespace, a hash of the database's name,
// and one of the run and the step; it has at most 64 bytes, as XA asks for. It
// does not contain the generation: phase two has generations of its own.
//
// # What it costs, and where it ends
//
// A prepared branch holds its locks until the decision arrives. Whoever needs
// the same rows waits for it: for at most [Options.LockTimeout] if it is a
// handler of this package, without end if it is not. Where the orchestrator is
// away the branch waits for it; that is what two-phase commit is. On
// PostgreSQL it also keeps VACUUM from removing whatever was deleted since,
// and, forgotten for very long, brings the database to a halt. So watch the age
// of what [Participant.InDoubt] lists. At their start and then every
// [Options.RecoverEvery] the workers ask for the decision of the branches in
// doubt and carry it out, also where the task that would have told has been lost;
// a branch of a run that the orchestrator does not know is rolled back.
// [Participant.Recover] does the same when it is called. Do not end
// branches by hand; where it cannot be helped the run will tell.
//
// No database sees a deadlock that goes through two of them: run A holds a row
// here and waits for one there, run B the other way round. The lock timeout ends
// it, with a retry or a vote of no, and a worker performs commits and aborts before
// whatever else waits. So every run gets to a decision, but where many runs want
// the same few rows it is an abort for most of them. Then let the workflow take
// named locks (Lock("'account/' + input.from") of its builder): its runs
// stand in line in the orchestrator, and no database sees them wait. Where that
// is not possible, choose a short lock timeout and few attempts to prepare.
//
// Each participant is isolated by itself. Two participants commit one after the
// other, and a reader of both databases may see the one without the other.
//
// # PostgreSQL
//
// The setting max_prepared_transactions, 0 by default, bounds the branches that
// are prepared at a time; [New] refuses a server where it is 0. All workers of a
// participant connect as the same user, since PostgreSQL lets no other (but a
// superuser) end a branch. A pooler between worker and server has to work by
// session, not by transaction. A transaction that has used temporary tables,
// LISTEN, NOTIFY or a cursor WITH HOLD cannot be prepared.
//
// # MariaDB and MySQL
//
// The same with XA START, XA END, XA PREPARE, XA COMMIT and XA ROLLBACK, and
// with GET_LOCK. What differs:
//
// From XA START on a session serves nothing but its branch, and after XA PREPARE
// nobody else can end the branch until the session is over. So the vote is
// written by another connection, and the branch's own is kept for a quarter of a
// second: the decision, when it comes to the same worker by then, is carried out
// on it. Otherwise the connection is closed, and whoever ends the branch waits
// until the session has been over for a moment. (MariaDB says yes to a commit or a
// rollback that another session sends right while the branch's is closing, loses
// sight of the branch, and keeps its rows locked until it is started again. So a
// commit by name looks for the row before it is answered, and says so where there
// is none.) Nor does it wait for the disk when it rolls back: after a crash the
// branch may be prepared again, and is rolled back again when a worker asks for
// the decision.
// Each prepare opens a connection; a limit of
// connections must be 2 at least. A branch whose session ends before XA PREPARE
// is rolled back; after it, it is kept, by MariaDB from 10.5 on, also over a crash of the
// server.
//
// COMMIT, ROLLBACK and whatever implies one (CREATE TABLE, TRUNCATE) fail inside
// of a branch. A statement that fails is undone, and nothing else: a handler that
// passes over the error votes yes for the rest. Only a deadlock dooms the whole
// branch. Tables of other engines than InnoDB take no part.
//
// A handler votes read-only if it has changed no row. SELECT ... FOR UPDATE
// changes none: its locks end with the vote, before the other participants have
// voted. (On PostgreSQL it counts as a change.) MySQL does not tell, so that there
// every vote is a yes.
//
// Waits for locks are counted in seconds: the lock timeout is rounded up to the
// next one.
//
// [New] refuses servers that would not keep what they have prepared
// (innodb_flush_log_at_trx_commit other than 1, MariaDB before 10.5), a Galera
// cluster, which knows no XA, and connections without autocommit. On MySQL the user needs XA_RECOVER_ADMIN.
// XA RECOVER shows neither when a branch was prepared nor by whom; both is in the
// table of votes. A proxy between worker and server has to work by session.
package xa
