package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// kustomization and serviceMonitor are kinds that Kubernetes itself does not
// have, with as much of them as is used here.
type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Namespace       string   `json:"namespace"`
	Resources       []string `json:"resources"`
}

type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// manifests are all objects of a folder, and what was found in them.
type manifests struct {
	objects  []object
	monitors []object
	problems []problem
}

type object struct {
	file  string
	value any
}

func (m *manifests) found(file, format string, args ...any) {
	m.problems = append(m.problems, problem{file, fmt.Sprintf(format, args...)})
}

func lintManifests(dir string) ([]problem, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, errors.New("there are no manifests"))
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, policyv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	m := &manifests{}
	for _, file := range files {
		if err := m.read(file, decoder); err != nil {
			return nil, err
		}
	}
	m.listed(dir, files)
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	for _, o := range m.objects {
		m.check(o, evaluator)
	}
	for _, o := range m.monitors {
		m.checkMonitor(o)
	}
	return m.problems, nil
}

// read decodes the documents of a file, each into its own type, strictly: a
// field that the type does not have is a fault, as is one given twice.
func (m *manifests) read(file string, decoder runtime.Decoder) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	documents := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			m.found(file, "%v", err)
			return nil
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			m.found(file, "%v", err)
			continue
		}
		switch kind.Kind {
		case "Kustomization":
			k := &kustomization{}
			if err := yaml.UnmarshalStrict(document, k); err != nil {
				m.found(file, "%v", err)
			}
			m.objects = append(m.objects, object{file, k})
		case "ServiceMonitor":
			s := &serviceMonitor{}
			if err := yaml.UnmarshalStrict(document, s); err != nil {
				m.found(file, "%v", err)
			}
			m.monitors = append(m.monitors, object{file, s})
		default:
			o, _, err := decoder.Decode(document, nil, nil)
			if err != nil {
				m.found(file, "%v", err)
				continue
			}
			m.objects = append(m.objects, object{file, o})
		}
	}
}

// listed checks that the kustomization names what there is, but for what is
// optional or an example.
func (m *manifests) listed(dir string, files []string) {
	for _, o := range m.objects {
		k, ok := o.value.(*kustomization)
		if !ok {
			continue
		}
		for _, name := range k.Resources {
			if !slices.Contains(files, filepath.Join(dir, name)) {
				m.found(o.file, "there is no %s", name)
			}
		}
		for _, file := range files {
			name := filepath.Base(file)
			if !slices.Contains(k.Resources, name) && name != "kustomization.yaml" && name != "servicemonitor.yaml" && !strings.Contains(name, ".example.") {
				m.found(o.file, "it does not name %s", name)
			}
		}
	}
}

// each calls f with every object of a type.
func each[T any](m *manifests, f func(file string, v T)) {
	for _, o := range m.objects {
		if v, ok := o.value.(T); ok {
			f(o.file, v)
		}
	}
}

func (m *manifests) check(o object, evaluator policy.Evaluator) {
	if named, ok := o.value.(metav1.Object); ok && named.GetNamespace() != "ringmaster" {
		if _, own := o.value.(*corev1.Namespace); !own {
			m.found(o.file, "%s is in the namespace %q", named.GetName(), named.GetNamespace())
		}
	}
	switch v := o.value.(type) {
	case *appsv1.Deployment:
		m.checkDeployment(o.file, v, evaluator)
	case *corev1.Service:
		m.checkService(o.file, v)
	case *policyv1.PodDisruptionBudget:
		if v.Spec.MaxUnavailable == nil || !m.selects(v.Spec.Selector) {
			m.found(o.file, "the disruption budget %s selects no pods, or sets no maxUnavailable", v.Name)
		}
	case *networkingv1.NetworkPolicy:
		m.checkNetwork(o.file, v)
	case *corev1.Namespace:
		if v.Labels[api.EnforceLevelLabel] != string(api.LevelRestricted) {
			m.found(o.file, "the namespace %s does not enforce the restricted level", v.Name)
		}
	}
}

func (m *manifests) checkDeployment(file string, d *appsv1.Deployment, evaluator policy.Evaluator) {
	pod := d.Spec.Template
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			m.found(file, "%s: restricted: %s (%s)", d.Name, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
		m.found(file, "%s does not select its own pods", d.Name)
	}
	if d.Spec.Replicas == nil || *d.Spec.Replicas < 2 {
		m.found(file, "%s has fewer than two replicas", d.Name)
	}
	if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
		m.found(file, "%s is given a token of the cluster's API", d.Name)
	}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		m.found(file, "%s is given variables of services, some of which begin with RINGMASTER_", d.Name)
	}
	covered := false
	each(m, func(_ string, b *policyv1.PodDisruptionBudget) {
		s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		covered = covered || err == nil && s.Matches(labels.Set(pod.Labels))
	})
	if !covered {
		m.found(file, "%s has no disruption budget", d.Name)
	}
	for _, c := range pod.Spec.Containers {
		m.checkContainer(file, d, &c)
	}
}

func (m *manifests) checkContainer(file string, d *appsv1.Deployment, c *corev1.Container) {
	fault := func(format string, args ...any) { m.found(file, d.Name+": "+format, args...) }
	if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		fault("its root can be written")
	}
	if _, tag, ok := strings.Cut(c.Image, ":"); !ok || tag == "latest" {
		fault("its image %s has no version", c.Image)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		fault("it says not what it needs: requests of cpu and memory, a limit of memory")
	}
	for name, probe := range map[string]*corev1.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		switch {
		case probe == nil || probe.HTTPGet == nil:
			fault("it has no %s probe", name)
		case !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == probe.HTTPGet.Port.String() }):
			fault("its %s probe asks a port %s that it does not have", name, probe.HTTPGet.Port.String())
		}
	}
	for _, e := range c.Env {
		secret := strings.Contains(e.Name, "URL") || e.Name == "RINGMASTER_DB"
		switch {
		case secret && e.Value != "":
			fault("%s holds a password, and is not taken from a Secret", e.Name)
		case e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !m.hasSecret(e.ValueFrom.SecretKeyRef):
			fault("%s is taken from a Secret that no example shows", e.Name)
		}
	}
	for _, mount := range c.VolumeMounts {
		i := slices.IndexFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if i < 0 {
			fault("there is no volume %s", mount.Name)
			continue
		}
		if from := d.Spec.Template.Spec.Volumes[i].ConfigMap; from != nil {
			known := false
			each(m, func(_ string, cm *corev1.ConfigMap) { known = known || cm.Name == from.Name })
			if !known {
				fault("there is no ConfigMap %s", from.Name)
			}
		}
	}
}

func (m *manifests) hasSecret(ref *corev1.SecretKeySelector) (found bool) {
	each(m, func(_ string, s *corev1.Secret) {
		_, has := s.StringData[ref.Key]
		found = found || s.Name == ref.Name && has
	})
	return found
}

// selects tells whether a selector fits pods of one of the deployments.
func (m *manifests) selects(l *metav1.LabelSelector) (found bool) {
	s, err := metav1.LabelSelectorAsSelector(l)
	each(m, func(_ string, d *appsv1.Deployment) {
		found = found || err == nil && s.Matches(labels.Set(d.Spec.Template.Labels))
	})
	return found
}

func (m *manifests) checkService(file string, s *corev1.Service) {
	if !m.selects(&metav1.LabelSelector{MatchLabels: s.Spec.Selector}) {
		m.found(file, "the service %s selects no pods", s.Name)
	}
	for _, p := range s.Spec.Ports {
		if !m.hasPort(p.TargetPort.String()) {
			m.found(file, "the service %s leads to a port %s that no container has", s.Name, p.TargetPort.String())
		}
	}
}

func (m *manifests) hasPort(name string) (found bool) {
	each(m, func(_ string, d *appsv1.Deployment) {
		for _, c := range d.Spec.Template.Spec.Containers {
			found = found || slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
		}
	})
	return found
}

func (m *manifests) checkNetwork(file string, n *networkingv1.NetworkPolicy) {
	if !m.selects(&n.Spec.PodSelector) {
		m.found(file, "the network policy %s selects no pods", n.Name)
	}
	for _, rule := range n.Spec.Ingress {
		if len(rule.From) == 0 {
			m.found(file, "the network policy %s lets everybody in", n.Name)
		}
		for _, p := range rule.Ports {
			if !m.hasPort(p.Port.String()) {
				m.found(file, "the network policy %s opens a port %s that no container has", n.Name, p.Port.String())
			}
		}
	}
	for _, rule := range n.Spec.Egress {
		if len(rule.To) == 0 || len(rule.Ports) == 0 {
			m.found(file, "the network policy %s lets everything out", n.Name)
		}
	}
}

func (m *manifests) checkMonitor(o object) {
	monitor, ok := o.value.(*serviceMonitor)
	if !ok {
		return
	}
	known := false
	each(m, func(_ string, s *corev1.Service) {
		selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
		known = known || err == nil && selector.Matches(labels.Set(s.Labels))
	})
	if !known {
		m.found(o.file, "%s selects no service", monitor.Name)
	}
	for _, e := range monitor.Spec.Endpoints {
		if !m.hasPort(e.Port) {
			m.found(o.file, "%s asks a port %s that no container has", monitor.Name, e.Port)
		}
	}
}
