package spelling_test

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/internal/spelling"
)

func TestWhatWasProbablyMeantIsFound(t *testing.T) {
	names := []string{"amqp_url", "namespace", "max_unfinished", "log_level", "log_format", "db"}
	for word, want := range map[string]string{
		"namspace": "namespace", "amqp_ulr": "amqp_url", "AMQP-URL": "amqp_url", "amqp_uri": "amqp_url",
		"log_levels": "log_level", "maxunfinished": "max_unfinished",
		"colour": "", "k": "", "": "", "dbb": "db",
	} {
		if got := spelling.Nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
