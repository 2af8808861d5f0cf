package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

func TestTheServerIsVerifiedAsTheURLSays(t *testing.T) {
	cert, key := certificate(t, "localhost")
	other, _ := certificate(t, "localhost")
	server, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{Settings: map[string]string{
		"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	plain := strings.TrimSuffix(server.URL, "?sslmode=disable")
	for _, tt := range []struct{ name, url, says string }{
		{"by its certificate", strings.Replace(plain, "127.0.0.1", "localhost", 1) + "?sslmode=verify-full&sslrootcert=" + cert, ""},
		{"under another name", plain + "?sslmode=verify-full&sslrootcert=" + cert, "x509"},
		{"with another certificate", strings.Replace(plain, "127.0.0.1", "localhost", 1) + "?sslmode=verify-full&sslrootcert=" + other, "x509"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := postgres.Open(t.Context(), schema{tt.url, "tls"}.config(1))
			if err == nil {
				err = s.Close()
			}
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error is %v; want %q", err, tt.says)
			}
		})
	}
}

// certificate makes one for a name, signed by itself, with files that the server may
// read, which a test that runs as root starts as another user.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ringmaster-tls-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		return cert, key
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, cert, key} {
		if err := os.Chown(path, uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
