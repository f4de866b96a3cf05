// Reads the views with clickhouse-go and prints what it found, for test_clients.py.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

type column struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Comment string `json:"comment"`
}

type found struct {
	Views    []string `json:"views"`
	Columns  []column `json:"columns"`
	Day      string   `json:"day"`
	Events   int64    `json:"events"`
	Parallel int64    `json:"parallel"`
	Wrapped  int      `json:"wrapped"`
	Streamed int      `json:"streamed"`
	Refused  string   `json:"refused"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx := context.Background()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:         []string{os.Getenv("BI_NATIVE")},
		MaxOpenConns: 8,
		Auth: clickhouse.Auth{
			Database: os.Getenv("BI_DATABASE"),
			Username: os.Getenv("BI_USER"),
			Password: os.Getenv("BI_PASSWORD"),
		},
	})
	if err != nil {
		return err
	}
	defer conn.Close()

	var out found
	if out.Views, err = views(ctx, conn); err != nil {
		return err
	}
	listed, err := conn.Query(ctx, "SELECT name, type, comment FROM system.columns WHERE database = currentDatabase() AND table = 'event_daily' ORDER BY position")
	if err != nil {
		return err
	}
	for listed.Next() {
		var c column
		if err := listed.Scan(&c.Name, &c.Type, &c.Comment); err != nil {
			return err
		}
		out.Columns = append(out.Columns, c)
	}
	var day time.Time
	if err := conn.QueryRow(ctx, "SELECT day, events FROM event_daily LIMIT 1").Scan(&day, &out.Events); err != nil {
		return err
	}
	out.Day = day.Format(time.DateOnly)
	if out.Parallel, err = countAll(ctx, conn, out.Views); err != nil {
		return err
	}
	if out.Wrapped, err = stream(ctx, conn, os.Getenv("WRAPPED")); err != nil {
		return err
	}
	if out.Streamed, err = stream(ctx, conn, os.Getenv("MANY")); err != nil {
		return err
	}
	_, refused := stream(ctx, conn, os.Getenv("TOO_MANY"))
	out.Refused = fmt.Sprint(refused)
	return json.NewEncoder(os.Stdout).Encode(out)
}

func views(ctx context.Context, conn driver.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, "SHOW TABLES")
	if err != nil {
		return nil, err
	}
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// countAll counts the rows of all views at once, over as many connections as the client may open.
func countAll(ctx context.Context, conn driver.Conn, views []string) (int64, error) {
	var filled atomic.Int64
	var wait sync.WaitGroup
	failed := make(chan error, len(views))
	for _, view := range views {
		wait.Add(1)
		go func() {
			defer wait.Done()
			var count uint64
			if err := conn.QueryRow(ctx, "SELECT count() FROM `"+view+"`").Scan(&count); err != nil {
				failed <- err
			} else if count > 0 {
				filled.Add(1)
			}
		}()
	}
	wait.Wait()
	close(failed)
	return filled.Load(), <-failed
}

// stream counts rows without reading their columns.
func stream(ctx context.Context, conn driver.Conn, query string) (int, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	count := 0
	for rows.Next() {
		count++
	}
	return count, rows.Err()
}
