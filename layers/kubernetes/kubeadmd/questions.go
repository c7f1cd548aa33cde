package kubeadmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// mergePath is where a cluster is asked by another one.
const mergePath = "/merge"

// maxQuestion bounds a question and its answer: a record with as many guests as
// there may be cubes.
const maxQuestion = 64 << 10

// question answers another cluster. Only its control plane may ask, but any node
// may ask where its cluster went.
func (e *Engine) question(w http.ResponseWriter, r *http.Request) {
	var q merge.Request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q); err != nil {
		http.Error(w, "cannot read the question", http.StatusBadRequest)
		return
	}
	cube := e.CubeOf(r.TLS.PeerCertificates[0])
	if q.Kind != merge.Where && (cube == "" || cube != q.From.Cube) {
		http.Error(w, "only for control-plane nodes of clusters that are known here", http.StatusForbidden)
		return
	}
	answer := e.answer.Load()
	if answer == nil || *answer == nil {
		http.Error(w, "not a control-plane node here", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookTimeout)
	defer cancel()
	reply, err := (*answer)(ctx, q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(w).Encode(reply)
}

// Ask puts a question to the first control-plane node of a cube that answers.
func (e *Engine) Ask(ctx context.Context, cube string, q merge.Request) (merge.Reply, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return merge.Reply{}, err
	}
	errs := []error{}
	for _, m := range e.cube(cube) {
		reply, err := e.askMerge(ctx, m, body)
		if err == nil {
			return reply, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
	}
	if len(errs) == 0 {
		return merge.Reply{}, fmt.Errorf("cannot find the control plane of %q", cube)
	}
	return merge.Reply{}, errors.Join(errs...)
}

func (e *Engine) askMerge(ctx context.Context, m Member, body []byte) (merge.Reply, error) {
	var reply merge.Reply
	client, err := e.client(m)
	if err != nil {
		return reply, err
	}
	client.Timeout = lookTimeout
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, peerURL(m, mergePath), bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxQuestion))
	switch {
	case err != nil:
		return reply, err
	case resp.StatusCode != http.StatusOK:
		return reply, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text[:min(len(text), 200)])))
	}
	return reply, json.Unmarshal(text, &reply)
}
