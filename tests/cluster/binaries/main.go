// Every server of a Kubernetes cluster in one program: argv[1] says which one it is today. One program, because the five
// share nearly all of their code: 133 MB together, against half a gigabyte apart.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	servers := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllermanager.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	}
	// By its own name too, so that links to it named like the servers make a folder for KUBEBUILDER_ASSETS.
	name, arguments := filepath.Base(os.Args[0]), os.Args
	if _, known := servers[name]; !known && name != "etcd" {
		if len(os.Args) < 2 {
			usage("which server?")
		}
		name, arguments = os.Args[1], os.Args[1:]
	}
	os.Args = arguments
	if name == "etcd" {
		etcdmain.Main(arguments)
		return
	}
	server, known := servers[name]
	if !known {
		usage(fmt.Sprintf("no server %q", name))
	}
	os.Exit(cli.Run(server()))
}

func usage(trouble string) {
	fmt.Fprintln(os.Stderr, trouble+": etcd, kube-apiserver, kube-controller-manager, kube-scheduler or kubelet, then its flags")
	os.Exit(2)
}
