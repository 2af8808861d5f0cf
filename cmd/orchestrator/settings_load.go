package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/internal/spelling"
)

// envPrefix begins every variable that is a setting.
const envPrefix = "RINGMASTER_"

// loadSettings puts the sources of settings together.
func loadSettings(cmd *cobra.Command) (settings, *koanf.Koanf, error) {
	l := loader{k: koanf.New("."), flags: cmd.Flags(), known: knownSettings(cmd.Flags()), origins: map[string]string{}}
	path, _ := cmd.Flags().GetString("config")
	from := "--config " + path
	if path == "" {
		path = os.Getenv(envPrefix + "CONFIG")
		from = envPrefix + "CONFIG=" + path
	}
	if path != "" {
		if err := l.file(path, from); err != nil {
			return settings{}, nil, err
		}
	}
	if err := l.environment(); err != nil {
		return settings{}, nil, err
	}
	warnUnknown(cmd.ErrOrStderr(), os.Environ(), l.known)
	if err := l.commandLine(); err != nil {
		return settings{}, nil, fmt.Errorf("read the flags: %w", err)
	}
	s := settings{origins: l.origins}
	if err := l.k.Unmarshal("", &s); err != nil {
		return settings{}, nil, usage("settings: %w", err)
	}
	return s, l.k, s.validate()
}

// loader gathers settings, and from where each comes.
type loader struct {
	k       *koanf.Koanf
	flags   *pflag.FlagSet
	known   []string
	origins map[string]string
}

func (l *loader) file(path, from string) error {
	if err := l.k.Load(file.Provider(path), yaml.Parser()); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return usage("%s: there is no such file", from)
		}
		return usage("%s: %w", from, err)
	}
	for _, key := range l.k.Keys() {
		if !slices.Contains(l.known, key) {
			return usage("%s: unknown setting %q%s; settings are named as flags are, with _ for -", from, key, didYouMean(key, l.known))
		}
		value, err := l.typed(key, fmt.Sprint(l.k.Get(key)))
		if err != nil {
			return usage("%s: %s %q: %w", from, key, fmt.Sprint(l.k.Get(key)), err)
		}
		if err := l.k.Set(key, value); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		l.origins[key] = from + ": " + key
	}
	return nil
}

func (l *loader) environment() error {
	var wrong error
	err := l.k.Load(env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: func(name, text string) (string, any) {
		key := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		if !slices.Contains(l.known, key) || text == "" {
			return "", nil
		}
		value, err := l.typed(key, text)
		if err != nil && wrong == nil {
			wrong = usage("%s=%q: %w", name, text, err)
		}
		l.origins[key] = name
		return key, value
	}}), nil)
	if err != nil {
		return fmt.Errorf("read the environment: %w", err)
	}
	return wrong
}

func (l *loader) commandLine() error {
	return l.k.Load(posflag.ProviderWithFlag(l.flags, ".", l.k, func(f *pflag.Flag) (string, any) {
		key := settingName(f.Name)
		if !slices.Contains(l.known, key) {
			return "", nil
		}
		if f.Changed || l.origins[key] == "" {
			l.origins[key] = "--" + f.Name
		}
		return key, posflag.FlagVal(l.flags, f)
	}), nil)
}

// typed reads the text of a setting as its flag would, or says what is expected.
func (l *loader) typed(key, text string) (any, error) {
	return typed(l.flags.Lookup(strings.ReplaceAll(key, "_", "-")), text)
}

func typed(f *pflag.Flag, text string) (any, error) {
	switch f.Value.Type() {
	case "int":
		if n, err := strconv.Atoi(text); err == nil {
			return n, nil
		}
		return nil, fmt.Errorf("expected a whole number%s", suchAs(f))
	case "bool":
		if b, err := strconv.ParseBool(text); err == nil {
			return b, nil
		}
		return nil, errors.New("expected true or false")
	case "duration":
		if d, err := time.ParseDuration(text); err == nil {
			return d, nil
		}
		return nil, fmt.Errorf("expected a number with its unit (ms, s, m, h)%s", suchAs(f))
	}
	return text, nil
}

// suchAs gives a flag's default as an example.
func suchAs(f *pflag.Flag) string {
	if f.DefValue == "" || f.DefValue == "0" || f.DefValue == "0s" {
		return ""
	}
	return ", such as " + f.DefValue
}

// origin is where a setting's value comes from, such as --listen or RINGMASTER_LISTEN.
func (s settings) origin(name string) string {
	if from := s.origins[name]; from != "" {
		return from
	}
	return name
}

func settingName(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// knownSettings are the names of the flags that are settings.
func knownSettings(fl *pflag.FlagSet) []string {
	var names []string
	fl.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "print-config", "help", "api", "ephemeral", "output", "pprof-listen", "replace":
		default:
			names = append(names, settingName(f.Name))
		}
	})
	return names
}

// otherVariables are read by commands of ours, and are not settings of each daemon.
var otherVariables = []string{"config", "api", "operator", "amqp_url", "broker"}

// foreign variables begin like ours by accident: Kubernetes makes such ones of
// the name of a service, and tests have theirs.
var foreign = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_|$)|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_|$)|$)|^RINGMASTER_TEST_`)

// warnUnknown says which variables look like settings and are none. They are
// not refused, as unknown settings of a file are: an environment is shared by
// programs and by versions of them, a file is written for one.
func warnUnknown(w io.Writer, environ, known []string) {
	known = append(slices.Clone(known), otherVariables...)
	slices.Sort(environ)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, envPrefix)
		key = strings.ToLower(key)
		if !ours || value == "" || slices.Contains(known, key) || foreign.MatchString(name) {
			continue
		}
		hint := ""
		if near := spelling.Nearest(key, known); near != "" {
			hint = "; did you mean " + envPrefix + strings.ToUpper(near) + "?"
		}
		fmt.Fprintf(w, "warning: %s is not a setting and is ignored%s\n", name, hint)
	}
}

func didYouMean(word string, names []string) string {
	if near := spelling.Nearest(word, names); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}
