// Package testenv gives tests, benchmarks and demonstrations real services:
// RabbitMQ, PostgreSQL, MariaDB, Redis, etcd and ZooKeeper, each on private ports of the
// loopback interface and in a private directory.
//
// Three ways lead to a service:
//
//   - [RabbitMQ], [Postgres], [MySQL], [Redis], [Etcd] and [ZooKeeper] hand out
//     a service that all tests of a process share. Where the variable is set
//     that names one (RINGMASTER_TEST_AMQP_URL with RINGMASTER_TEST_MANAGEMENT_URL,
//     RINGMASTER_TEST_POSTGRES_URL, RINGMASTER_TEST_MYSQL_URL,
//     RINGMASTER_TEST_REDIS_URL, RINGMASTER_TEST_ETCD_URL,
//     RINGMASTER_TEST_ZOOKEEPER_URL), that is the service; otherwise the first
//     caller starts one. Every test gets a virtual host or a database of its own
//     on it where the service has such a thing.
//   - [RabbitMQCluster] and [StartCluster] start three RabbitMQ nodes, each in a
//     network namespace of its own where the machine allows that, which can be
//     killed, paused, cut off and restarted one by one.
//   - [PrivateRabbitMQ], [StartRabbit], [StartPostgres], [StartMySQL],
//     [StartRedis], [StartEtcd] and [StartZooKeeper] always start a service of
//     their own, for tests that stop, kill or starve it.
//
// A service that this package did not start is never stopped, restarted or
// reconfigured. One that it did start ends with the process that started it,
// however that process ends: a small shell (see reaper) waits for the end of a
// pipe that only the process holds, and ends the service then.
//
// A missing server is installed with apt-get when that is possible (root on a
// Debian); otherwise the error says what to install. The package needs a Unix.
//
// The command in internal/testenv/cmd does the same for shell scripts.
package testenv
