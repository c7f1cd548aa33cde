package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// A mistake that only the sources know of, as a version that nobody has, looks
// like any other.
func TestLateDiagnostics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "picube.hcl")
	if err := os.WriteFile(file, []byte("cube \"picube\" {\n  kubernetes {\n    version = \"1.34.9\"\n  }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := fmt.Errorf("layer kubernetes: %w", hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: "Unknown version", Detail: "Kubernetes v1.34.9: cannot find this version.",
		Subject: &hcl.Range{Filename: file, Start: hcl.Pos{Line: 2, Column: 3, Byte: 18}, End: hcl.Pos{Line: 2, Column: 13, Byte: 28}},
	}})
	for _, test := range []struct {
		json           bool
		stdout, stderr string
	}{
		{false, "", "Error: Unknown version\n\n  on " + file + " line 2:\n   2:   kubernetes {\n\nKubernetes v1.34.9: cannot find this version.\n\n"},
		{true, `"summary": "Unknown version"`, ""},
	} {
		var stdout, stderr bytes.Buffer
		c := &cli{stdout: &stdout, stderr: &stderr, json: test.json}
		if code := c.failed(t.Context(), err); code != exitUsage {
			t.Errorf("exit code %d", code)
		}
		if !bytes.Contains(stdout.Bytes(), []byte(test.stdout)) || stderr.String() != test.stderr {
			t.Errorf("it says %q and %q", stdout.String(), stderr.String())
		}
	}
}
