// What prometheus-operator makes of monitors: its own generator, run over the PodMonitors and ServiceMonitors of rendered manifests.
//
//	helm template ... | operator > prometheus.yaml
//
// Owns: the call of the generator. Must not know: what the chart's monitors say.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus-operator/prometheus-operator/pkg/assets"
	"github.com/prometheus-operator/prometheus-operator/pkg/prometheus"
	"sigs.k8s.io/yaml"
)

func main() {
	generated, err := generate(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(generated)
}

func generate(manifests io.Reader) ([]byte, error) {
	text, err := io.ReadAll(manifests)
	if err != nil {
		return nil, err
	}
	pods := map[string]*monitoring.PodMonitor{}
	services := map[string]*monitoring.ServiceMonitor{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, err
		}
		switch kind.Kind {
		case "PodMonitor":
			// Strict: a field that the operator does not know would be dropped by the API server.
			monitor := &monitoring.PodMonitor{}
			if err := yaml.UnmarshalStrict(document, monitor); err != nil {
				return nil, err
			}
			pods[monitor.Name] = monitor
		case "ServiceMonitor":
			monitor := &monitoring.ServiceMonitor{}
			if err := yaml.UnmarshalStrict(document, monitor); err != nil {
				return nil, err
			}
			services[monitor.Name] = monitor
		}
	}
	// The least of a Prometheus object: every default is the operator's.
	owner := &monitoring.Prometheus{}
	owner.Name, owner.Namespace = "prometheus", "monitoring"
	generator, err := prometheus.NewConfigGenerator(nil, owner)
	if err != nil {
		return nil, err
	}
	store := assets.NewTestStoreBuilder()
	return generator.GenerateServerConfiguration(owner, services, pods, nil, nil, store, nil, nil, nil, nil)
}
