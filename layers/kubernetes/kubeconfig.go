package kubernetes

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
)

// LaptopFiles returns the file that kubectl on the laptop needs.
func (l *Layer) LaptopFiles(p *plan.Plan, c *plan.Cube) (map[string][]byte, error) {
	if c.Spec.Kubernetes == nil {
		return nil, nil
	}
	id, err := l.Identity(c.Spec.Cluster)
	if err != nil {
		return nil, err
	}
	contexts, err := Contexts(p, c.Spec.Cluster)
	if err != nil {
		return nil, err
	}
	config, err := Kubeconfig(id, contexts...)
	return map[string][]byte{"kubeconfig": config}, err
}

// Context is a cluster of a kubeconfig.
type Context struct {
	Name   string
	Server string // URL of the API
}

// Contexts returns the clusters that begin within one: the first is called
// like it, the others CLUSTER-CUBE. Each API's address is as seen from the
// household: its first control-plane node by its name.
func Contexts(p *plan.Plan, cluster string) ([]Context, error) {
	homes := []string{""}
	for i, c := range p.Beginners(cluster) {
		if i == 0 {
			homes = nil
		}
		homes = append(homes, c.Spec.Name)
	}
	var contexts []Context
	for i, home := range homes {
		nodes := p.ControlPlane(cluster, home)
		if len(nodes) == 0 {
			return nil, fmt.Errorf("cluster %q: cannot find a control plane in it", cluster)
		}
		name := cluster
		if i > 0 {
			name += "-" + home
		}
		contexts = append(contexts, Context{name, fmt.Sprintf("https://%s.local:%d", nodes[0].Name, kubeadmd.APIPort)})
	}
	return contexts, nil
}

// Kubeconfig returns the file for the laptop, complete in itself; kubectl uses
// the first context if it is not told another. All have one identity, so one
// certificate does for them.
func Kubeconfig(id *secrets.Cluster, contexts ...Context) ([]byte, error) {
	ca, err := id.Authority("kubernetes", clusterAuthority)
	if err != nil {
		return nil, err
	}
	admin, err := ca.Issue(adminRequest("picube:laptop"))
	if err != nil {
		return nil, err
	}
	b64 := base64.StdEncoding.EncodeToString
	type object = map[string]any
	var clusters, list []object
	user := contexts[0].Name
	for _, c := range contexts {
		clusters = append(clusters, object{"name": c.Name, "cluster": object{"server": c.Server, "certificate-authority-data": b64(ca.Certificate())}})
		list = append(list, object{"name": c.Name, "context": object{"cluster": c.Name, "user": user}})
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(object{
		"apiVersion": "v1", "kind": "Config", "current-context": user,
		"clusters": clusters, "contexts": list,
		"users": []object{{"name": user, "user": object{"client-certificate-data": b64(admin.Certificate), "client-key-data": b64(admin.Key)}}},
	}); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}
