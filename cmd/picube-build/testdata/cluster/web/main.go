// Command web is what runs in the pods of TestCluster: a server, a client for
// "kubectl exec", and something that keeps processors busy, in one image without
// anything else.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "get" {
		if err := get(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "burn" {
		for range runtime.NumCPU() {
			go func() {
				for {
				}
			}()
		}
		select {}
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("request for %s from %s\n", r.URL.Path, r.RemoteAddr)
		setting, _ := os.ReadFile("/config/setting")
		fmt.Fprintf(w, "%s of %s says %s\n", os.Getenv("HOSTNAME"), os.Getenv("NODE"), setting)
	})
	fmt.Println("serving")
	if err := http.ListenAndServe(":8080", nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func get(url string) error {
	client := http.Client{Timeout: time.Minute}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
