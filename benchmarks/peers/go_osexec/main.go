// Go's os/exec: main sequential|capture COUNT, main burst|capture-burst COUNT AT_ONCE.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func one(capture bool) {
	if !capture {
		if err := exec.Command("/bin/true").Run(); err != nil {
			panic(err)
		}
		return
	}
	var out, errors bytes.Buffer
	command := exec.Command("/bin/echo", "x")
	command.Stdout, command.Stderr = &out, &errors
	if err := command.Run(); err != nil || out.String() != "x\n" {
		panic(fmt.Sprint(err, out.String()))
	}
}

func together(count int, capture bool) {
	if count == 1 {
		one(capture)
		return
	}
	var group sync.WaitGroup
	for i := 0; i < count; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			one(capture)
		}()
	}
	group.Wait()
}

func cpu() time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		panic(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func main() {
	mode, atOnce := os.Args[1], 1
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	if strings.HasSuffix(mode, "burst") {
		if atOnce, err = strconv.Atoi(os.Args[3]); err != nil {
			panic(err)
		}
	}
	capture := strings.HasPrefix(mode, "capture")
	together(10, capture)
	used, began := cpu(), time.Now()
	for i := 0; i < count; i++ {
		together(atOnce, capture)
	}
	took, spawns := time.Since(began), float64(count*atOnce)
	fmt.Printf("{\"rate\": %.3f, \"cpu_us\": %.3f}\n", spawns/took.Seconds(), float64((cpu()-used).Nanoseconds())/1e3/spawns)
}
