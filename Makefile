# scrapersky: an ordinary PGXS extension (make, make install, make installcheck)
# with a few commands of its own on top.  `make help` lists them.

EXTENSION = scrapersky
MODULE_big = scrapersky
OBJS = src/scrapersky.o src/identity.o src/questions.o src/jwt.o src/keys.o \
	src/verify.o src/authenticate.o src/rbac.o src/protect.o src/guard.o \
	src/ddl.o src/api.o src/http.o src/libjwt.o
SHLIB_LINK = -ljansson -lcrypto

# libjwt is opened at run time, for a reason that src/libjwt.c gives: by the name
# that a program linked with it would use.
LIBJWT = $(shell objdump -p $$($(CC) -print-file-name=libjwt.so) 2>/dev/null | awk '/SONAME/ {print $$2}')
PG_CPPFLAGS = -DSKY_LIBJWT='"$(or $(LIBJWT),$(error libjwt is missing: install libjwt-dev))"'
DATA = $(wildcard sql/*--*.sql)

# The inputs of all tests lie in test/, their expected output in expected/.
REGRESS := $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir)/test --load-extension=$(EXTENSION)
ISOLATION := $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*_conc.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test --outputdir=. --load-extension=$(EXTENSION)
TAP_TESTS := $(if $(wildcard test/t/*.pl),1)
PROVE_TESTS = test/t/*.pl

# These work before PostgreSQL is installed: without PGXS.
OWN_COMMANDS = run stop clean-run check indent lint help

ifneq ($(filter-out $(OWN_COMMANDS),$(or $(MAKECMDGOALS),all)),)
PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error $(PG_CONFIG) does not run: install postgresql-server-dev-15, or say make PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)

PROVE_FLAGS += -I $(srcdir)/test/lib
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h)
else
# PGXS has a check of its own, which says that there is none
check:
	@tools/check
endif

.PHONY: $(OWN_COMMANDS)

run:
	@tools/run

stop:
	@tools/stop

clean-run:
	@tools/run --forget

indent:
	@tools/indent

lint:
	@tools/lint

help:
	@echo "make run         start everything on http://127.0.0.1:8000 (PORT=n: elsewhere); Ctrl-C stops it"
	@echo "make stop        stop what make run started"
	@echo "make clean-run   forget the data of make run"
	@echo "make check       build, check and test everything in a temporary folder"
	@echo "                 (TESTS=rbac: only the test files whose name begins so)"
	@echo "make indent      rewrite the C files in PostgreSQL's style"
	@echo "make lint        compiler warnings, cppcheck, versions, frozen scripts"
	@echo "make             compile the extension for the PostgreSQL of PG_CONFIG"
	@echo "make install     install it there"
	@echo "make installcheck   run the tests against a server of yours that preloads it"
	@echo "make clean       remove what was compiled"
