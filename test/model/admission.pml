/*
 * Admission and revocation, as the sidecar does them: two pods, two admissions of each.
 *
 * One `d_step` is one turn of the event loop: what the code does between two awaits. Each await of
 * `edge/admit.ts` and of what it calls is a value of `step`. Time has no numbers: a `tick` is more
 * than two seconds, in which all that must be prompt has happened. Whatever a world may do to the
 * sidecar is a trouble, and costs one of TROUBLES; what comes by itself costs nothing.
 *
 * A guard of the code is left out with -DWITHOUT_<guard>; test/model/guards.ts has the list.
 */

#ifndef TROUBLES
#define TROUBLES 2
#endif

#define pod_of(a)   ((a) / 2)
#define other(a)    ((a) ^ 1)
#define PODS        0
#define ACCOUNTS    1

/* A pod. MOVED: it has lost the address from which its workers come. UNSEEN: the watch never showed it. */
#define LIVE        0
#define MOVED       1
#define ENDING      2
#define GONE        3
#define UNSEEN      4

/* A ServiceAccount; both pods have the same. */
#define THERE       0
#define DELETED     1
#define UNKNOWN     2

/* The policy in force: allows the workers, only another role, or nobody of the account. */
#define ALLOWED     0
#define OTHER_ROLE  1
#define UNLISTED    2

/* A watch. MUTE: open, and dead without a sign; MUTED: since the last tick. LOST: it has to list again. */
#define OPEN        0
#define MUTE        1
#define MUTED       2
#define DOWN        3
#define LOST        4

/* The verdict cache. */
#define NONE        0
#define GOOD        1
#define BAD         2

/* The awaits of an admission. */
#define OUT         0   /* no admission */
#define REVIEWING   1   /* the TokenReview, its own or that of another caller */
#define AUTHED      2   /* the verdict is there, and the turn of the admission is not */
#define SEEKING     3   /* the watch has not shown the pod */
#define CONFIRMING  4   /* a live answer on the pod and one on the account */
#define CONFIRMING_POD      5
#define CONFIRMING_ACCOUNT  6
#define BOUND       7   /* the pod is bound, and the turn of the admission is not */
#define WAITING     8   /* the pod's earlier session has to leave the gateway */
#define DIALING     9   /* the gateway */
#define ASKING      10  /* once more, where the gateway took its time: as CONFIRMING */
#define ASKING_POD      11
#define ASKING_ACCOUNT  12
#define CONFIRMED   13  /* the answer is there, and the turn of the admission is not */
#define CHECKED     14  /* only where the last check and the release are two turns */
#define STREAM      15

/* admissions/lifecycle.ts */
#define PENDING     1
#define ADMITTED    2
#define CLOSING     3

/* What can be observed of an admission: see `phase`. */
#define P_OUT       0
#define P_BEGUN     1
#define P_REVIEWED  2
#define P_BOUND     3
#define P_IN        4
#define P_REVOKED   5
#define P_LEAVING   6
#define phase(a) ( \
  step[a] == OUT -> P_OUT : \
  (life[a] == CLOSING -> (step[a] == STREAM -> P_LEAVING : P_REVOKED) : \
  (step[a] <= AUTHED -> P_BEGUN : \
  (step[a] <= BOUND -> P_REVIEWED : \
  (step[a] < STREAM -> P_BOUND : P_IN)))))

#define E_BEGUN     0
#define E_REVIEWED  1   /* by a TokenReview that it waited for */
#define E_RECALLED  2   /* by the verdict cache */
#define E_BOUND     3
#define E_ADMITTED  4
#define E_ENDED     5
#define E_POD       6   /* revoked, and why: from here on */
#define E_ENDING    7
#define E_ACCOUNT   8
#define E_POLICY    9
#define E_DRAIN     10
#define E_DISPLACED 11
#define E_WORKER    12
#define E_LIFETIME  13

/* The truth of the cluster. */
byte truth[2];
byte account;
bit apiDown;
/* What the sidecar knows of it. */
byte view[2];
byte accountView;
byte conn[2];
bit silent[2];
bit distrusted[2];  /* it was ended for being behind, and is not again for a while */
/* Ticks for which there has been no watch to trust. */
byte stale;
/* The sidecar. */
byte policy;
bit draining;
byte cache[2];
bit flight[2];
byte step[4];
byte life[4];
bit cached[4];      /* its verdict came from the cache */
bit aged[4];        /* two seconds have passed since it was bound */
bit share[4];       /* of the drain: its turn is to come */
/* What only the properties look at: who is gone since the last tick, and for whom. */
bit longGone[2];
bit accountLongGone;
byte late[4];       /* 1: its pod or account was gone when it began; 2: and there was no watch for long */
byte troubles = TROUBLES;

/* Writes down each step of an admission that can be observed; the runner makes a table of them. */
#ifdef OBSERVED
hidden byte from_;
hidden byte event_;
hidden byte to_;

c_decl {
  static unsigned char observed[8][16][8];
  static void print_observed(void) {
    int from, event, to;
    for (from = 0; from < 8; from++)
      for (event = 0; event < 16; event++)
        for (to = 0; to < 8; to++)
          if (observed[from][event][to]) printf("observed %d %d %d\n", from, event, to);
  }
}

#define before(a) from_ = phase(a)
#define see(a, event) \
  to_ = phase(a); \
  event_ = event; \
  c_code { observed[from_][event_][to_] = 1; }
#else
#define before(a) skip
#define see(a, event) skip
#endif

/* The number names the promise in what the verifier prints; test/model/promises.ts has the words. */
#define promise(number, holds) assert((number) && (holds))

/* What a counterexample tells of itself. */
#define tell(a, what) printf(what, a)
#define happens(what) printf(what)

#define trouble     troubles > 0 -> troubles--
#define calm        (troubles == 0 && !apiDown && policy == ALLOWED && !draining)

inline finish(a) {
  before(a);
  tell(a, "~ admission %d ends\n");
  step[a] = OUT;
  life[a] = 0;
  cached[a] = 0;
  aged[a] = 0;
  late[a] = 0;
  share[a] = 0;
  see(a, E_ENDED)
}

inline revoke(a, why) {
  if
#ifdef WITHOUT_PENDING_REVOCATION
  :: life[a] == ADMITTED ->
#else
  :: life[a] == PENDING || life[a] == ADMITTED ->
#endif
    before(a);
    life[a] = CLOSING;
    see(a, why);
    tell(a, "~ admission %d is revoked\n");
    /* The abort ends each wait. A gateway may have answered already. */
    if :: step[a] < DIALING -> finish(a) :: else fi
  :: else
  fi
}

inline revoke_admitted(a, why) {
  if :: life[a] == ADMITTED -> revoke(a, why) :: else fi
}

inline revoke_pending(a, why) {
  if :: life[a] == PENDING -> revoke(a, why) :: else fi
}

/* VerdictCache.invalidatePod */
inline forget_verdicts(p) {
#ifndef WITHOUT_CACHE_INVALIDATION
  if :: cache[p] == GOOD -> cache[p] = NONE :: else fi;
#endif
#ifndef WITHOUT_FLIGHT_DISCARD
  flight[p] = 0;
#endif
}

/* What kube/pod-watch.ts tells its listeners: the authenticator first, then the revocation. */
inline pod_becomes(p, now_is) {
  if
  :: now_is == GONE && view[p] != UNSEEN ->
    view[p] = GONE;
    tell(p, "~ the watch shows pod %d gone\n");
    forget_verdicts(p);
#ifndef WITHOUT_POD_REVOCATION
    revoke(2 * p, E_POD);
    revoke(2 * p + 1, E_POD)
#endif
  :: now_is == GONE && view[p] == UNSEEN -> view[p] = GONE; tell(p, "~ the watch shows pod %d gone\n"); forget_verdicts(p)
  :: now_is == ENDING ->
    view[p] = ENDING;
    tell(p, "~ the watch shows pod %d ending\n");
    forget_verdicts(p);
    revoke_pending(2 * p, E_ENDING);
    revoke_pending(2 * p + 1, E_ENDING)
  :: now_is == MOVED ->
    view[p] = MOVED;
    tell(p, "~ the watch shows pod %d without its address\n");
#ifndef WITHOUT_REBINDING
    revoke_admitted(2 * p, E_POD);
    revoke_admitted(2 * p + 1, E_POD)
#endif
  :: else -> view[p] = LIVE; tell(p, "~ the watch shows pod %d alive\n")
  fi
}

inline account_goes() {
  happens("~ the watch shows the account deleted\n");
  accountView = DELETED;
#ifndef WITHOUT_ACCOUNT_REVOCATION
  revoke(0, E_ACCOUNT);
  revoke(1, E_ACCOUNT);
  revoke(2, E_ACCOUNT);
  revoke(3, E_ACCOUNT)
#endif
}

#define is_behind(p)   (view[p] != truth[p] && !(view[p] == UNSEEN && truth[p] == GONE))
#define account_behind (accountView != account)

/* A watch is told in order: a newer event is no proof while an older one is missing. */
#define is_heard (!(is_behind(0) && longGone[0]) && !(is_behind(1) && longGone[1]))

/* PodBinding.check: what the watch says now. */
#define is_bindable(p) (view[p] == LIVE && accountView == THERE)

#define pods_doubted     (conn[PODS] >= DOWN || silent[PODS])
#define accounts_doubted (conn[ACCOUNTS] >= DOWN || silent[ACCOUNTS])
#ifdef WITHOUT_SILENCE_CHECK
#undef pods_doubted
#define pods_doubted     (conn[PODS] >= DOWN)
#endif
#ifdef WITHOUT_ACCOUNTS_SILENCE_CHECK
#undef accounts_doubted
#define accounts_doubted (conn[ACCOUNTS] >= DOWN)
#endif

/* The answer contradicts the watch: it is ended, and the next one continues from its last event. */
inline distrust(k) {
#ifdef WITHOUT_DISTRUST_PAUSE
  if :: conn[k] < DOWN -> conn[k] = DOWN :: else fi
#else
  if :: conn[k] < DOWN && !distrusted[k] -> conn[k] = DOWN; distrusted[k] = 1 :: else fi
#endif
}

#define is_open(a)  (step[a] == STREAM && life[a] == ADMITTED)
#define at_gateway(a) (step[a] >= DIALING)
#define has_session(a) (step[a] >= WAITING)

/* Holds at the end of each turn that could break it. */
#define is_entitled(a) (!is_open(a) || \
  ((view[pod_of(a)] == LIVE || view[pod_of(a)] == ENDING) && accountView == THERE && policy == ALLOWED))
inline all_is_well() {
  promise(1, is_entitled(0) && is_entitled(1) && is_entitled(2) && is_entitled(3));
  promise(2, !(cache[0] == GOOD && view[0] == GONE) && !(cache[1] == GOOD && view[1] == GONE))
}

/* The last, synchronous step of an admission. */
inline release(a) {
  promise(3, life[a] == PENDING);
  promise(4, !draining || share[a]);
  promise(5, late[a] == 0 && !(aged[a] && (longGone[pod_of(a)] || accountLongGone)));
  before(a);
  life[a] = ADMITTED;
  step[a] = STREAM;
  aged[a] = 0;
  see(a, E_ADMITTED);
  tell(a, "~ admission %d is let in\n");
  all_is_well();
  promise(6, !at_gateway(other(a)))
}

#ifdef WITHOUT_LATE_RECHECK
#define has_late_objection(a) false
#else
#define has_late_objection(a) !(is_bindable(pod_of(a)) && policy == ALLOWED)
#endif
#ifdef WITHOUT_LIFECYCLE
#define may_admit(a) true
#else
#define may_admit(a) (life[a] == PENDING)
#endif
#ifdef WITHOUT_DRAIN_LATCH
#define may_begin true
#else
#define may_begin !draining
#endif
/* A worker comes back until it is in; so does a second one of its pod, until the world is calm. */
#ifdef LIVENESS
#define comes(a) (step[a] == OUT && (step[other(a)] == OUT -> !((a) & 1) : !calm))
#else
#define comes(a) (step[a] == OUT && (step[other(a)] != OUT || !((a) & 1)))
#endif

inline lookup(a) {
  if
  :: view[pod_of(a)] == GONE || accountView == DELETED || cache[pod_of(a)] == BAD -> finish(a)
  :: else ->
    late[a] = (longGone[pod_of(a)] || accountLongGone -> (stale == 2 -> 2 : 1) : 0);
    if
    :: cache[pod_of(a)] == GOOD -> step[a] = AUTHED; cached[a] = 1; tell(a, "~ admission %d has a cached verdict\n")
    :: else -> flight[pod_of(a)] = 1; tell(a, "~ admission %d waits for a TokenReview\n")
    fi
  fi
}

inline bound(a) { step[a] = BOUND; cached[a] = 0; tell(a, "~ admission %d is bound\n") }

inline bind(a) {
  if
  :: view[pod_of(a)] == UNSEEN -> step[a] = SEEKING; tell(a, "~ admission %d waits for the watch to show its pod\n")
  :: view[pod_of(a)] != UNSEEN && is_bindable(pod_of(a)) ->
    step[a] = (pods_doubted ->
      (accounts_doubted -> CONFIRMING : CONFIRMING_POD) :
      (accounts_doubted -> CONFIRMING_ACCOUNT : BOUND));
    cached[a] = (step[a] == BOUND -> 0 : cached[a]);
    if :: step[a] == BOUND -> tell(a, "~ admission %d is bound by the watch\n") :: else -> tell(a, "~ admission %d waits for a live answer\n") fi
  :: else -> finish(a)
  fi
}

/* PodBinding.isOutdated */
#ifdef WITHOUT_LATE_ANSWER
#define is_outdated(a) false
#else
#define is_outdated(a) (aged[a] && (pods_doubted || accounts_doubted))
#endif

#define waits_for_answer(a) (step[a] >= ASKING && step[a] <= ASKING_ACCOUNT && life[a] == PENDING)

inline last_turn(a) {
  if
  :: has_late_objection(a) || !may_admit(a) -> finish(a)
#ifdef WITHOUT_LAST_TURN
  :: else -> step[a] = CHECKED; tell(a, "~ admission %d passes its last check\n")
#else
  :: else -> release(a)
#endif
  fi
}

proctype Worker(byte a) {
  do
  :: d_step { comes(a) && may_begin ->
      before(a);
      step[a] = REVIEWING;
      life[a] = PENDING;
      see(a, E_BEGUN);
      tell(a, "~ admission %d begins\n");
      lookup(a)
    }
  /* The dial is given up, or the sockets of the stream are gone. */
  :: d_step { step[a] != OUT && life[a] == CLOSING -> finish(a) }
  :: d_step { step[a] == AUTHED ->
      before(a);
      step[a] = SEEKING;
      if :: cached[a] -> see(a, E_RECALLED) :: else -> see(a, E_REVIEWED) fi;
      bind(a)
    }
  :: d_step { step[a] == SEEKING && view[pod_of(a)] != UNSEEN -> bind(a) }
  /* The time is up: a GET can refuse, and tell that the watch is behind. The worker comes back. */
  :: d_step { step[a] == SEEKING && view[pod_of(a)] == UNSEEN ->
      if :: !apiDown && truth[pod_of(a)] == LIVE -> distrust(PODS) :: else fi;
      finish(a)
    }
  /* Both are asked at once; the first to refuse decides. */
  :: d_step { step[a] >= CONFIRMING && step[a] <= CONFIRMING_ACCOUNT ->
      if
      :: apiDown && cached[a] -> late[a] = (late[a] == 2 -> 2 : 0); bound(a)
      :: apiDown && !cached[a] -> finish(a)
      :: !apiDown && step[a] != CONFIRMING_ACCOUNT && truth[pod_of(a)] != LIVE -> distrust(PODS); finish(a)
      :: !apiDown && step[a] != CONFIRMING_POD && account != THERE -> distrust(ACCOUNTS); finish(a)
      :: else -> bound(a)
      fi
    }
  :: d_step { step[a] == BOUND ->
      before(a);
      step[a] = WAITING;
      see(a, E_BOUND);
      if
      :: policy == ALLOWED ->
        if
        :: has_session(other(a)) -> revoke(other(a), E_DISPLACED)
        :: else
        fi;
        tell(a, "~ admission %d opens its session\n")
      :: else -> finish(a)
      fi
    }
  :: d_step { step[a] == WAITING &&
#ifndef WITHOUT_PREDECESSOR_WAIT
      !has_session(other(a)) ->
#else
      true ->
#endif
      step[a] = DIALING;
      tell(a, "~ admission %d dials the gateway\n")
    }
  :: d_step { step[a] == DIALING ->
      if
      :: is_outdated(a) ->
        step[a] = (pods_doubted -> (accounts_doubted -> ASKING : ASKING_POD) : ASKING_ACCOUNT);
        tell(a, "~ admission %d waits for another live answer\n")
      :: else -> last_turn(a)
      fi
    }
  :: d_step { waits_for_answer(a) && !apiDown ->
      if
      :: step[a] != ASKING_ACCOUNT && truth[pod_of(a)] != LIVE -> distrust(PODS); finish(a)
      :: step[a] != ASKING_POD && account != THERE -> distrust(ACCOUNTS); finish(a)
      :: else -> step[a] = CONFIRMED
      fi
    }
  /* A verdict from the cache is enough, as before the dial; the model has forgotten whose was. */
  :: d_step { waits_for_answer(a) && apiDown -> aged[a] = 0; step[a] = CONFIRMED }
  :: d_step { waits_for_answer(a) && apiDown -> finish(a) }
  :: d_step { step[a] == CONFIRMED -> last_turn(a) }
#ifdef WITHOUT_LAST_TURN
  :: d_step { step[a] == CHECKED -> if :: may_admit(a) -> release(a) :: else -> finish(a) fi }
#endif
  /* Once a second each open stream is asked whether its time is over. */
  :: d_step { is_open(a) && view[pod_of(a)] == ENDING -> revoke(a, E_ENDING) }
  :: d_step { is_open(a) && stale == 2 -> revoke(a, E_LIFETIME) }
  /* The drain gets to it. */
  :: d_step { share[a] -> happens("~ the drain gets to it\n"); share[a] = 0; revoke(a, E_DRAIN) }
  /* The gateway refuses, or the worker leaves. */
  :: d_step { step[a] == DIALING && trouble -> happens("~ the gateway refuses\n"); finish(a) }
  :: d_step { is_open(a) && trouble -> happens("~ the worker leaves\n"); finish(a) }
  :: d_step { life[a] == PENDING && trouble -> happens("~ the worker leaves\n"); revoke(a, E_WORKER) }
  od
}

inline settle_ok(a) {
  if :: step[a] == REVIEWING && life[a] == PENDING -> step[a] = AUTHED :: else fi
}

inline settle_refused(a) {
  if :: step[a] == REVIEWING && life[a] == PENDING -> finish(a) :: else fi
}

/* The API server remembers for ten seconds that a token was good. */
#define may_say_yes(p) ((truth[p] != GONE || !longGone[p]) && (account == THERE || !accountLongGone))
#define may_say_no(p)  (truth[p] == GONE || account != THERE)

inline refuse(p) {
  flight[p] = 0;
  cache[p] = BAD;
  happens("~ the TokenReview says no\n");
  settle_refused(2 * p);
  settle_refused(2 * p + 1)
}

proctype Api(byte p) {
  do
  :: d_step { flight[p] && !apiDown && may_say_yes(p) ->
      flight[p] = 0;
      cache[p] = GOOD;
      happens("~ the TokenReview says yes\n");
      settle_ok(2 * p);
      settle_ok(2 * p + 1);
      all_is_well()
    }
  :: d_step { flight[p] && !apiDown && may_say_no(p) -> refuse(p) }
  /* A failed look-up of the API server looks like a deletion. */
  :: d_step { flight[p] && !apiDown && trouble -> refuse(p) }
  /* A fault is never kept. */
  :: d_step { flight[p] && apiDown ->
      flight[p] = 0;
      happens("~ the TokenReview fails\n");
      settle_refused(2 * p);
      settle_refused(2 * p + 1)
    }
  od
}

#define may_watch (!apiDown && policy != UNLISTED)

inline relist_pod(p) {
#ifdef WITHOUT_RELIST_DIFF
  if
  :: truth[p] == GONE && view[p] != GONE -> truth[p] = GONE; missed[p] = 1
  :: else -> pod_becomes(p, truth[p])
  fi
#else
  if
  :: is_behind(p) -> pod_becomes(p, truth[p])
  :: else
  fi
#endif
}
#ifdef WITHOUT_RELIST_DIFF
bit missed[2];
#define is_due(p) (is_behind(p) && !missed[p])
#else
#define is_due(p) is_behind(p)
#endif

proctype Watch() {
  do
  :: d_step { conn[PODS] == OPEN && is_due(0) ->
      pod_becomes(0, truth[0]);
      if :: is_heard -> silent[PODS] = 0 :: else fi;
      all_is_well()
    }
  :: d_step { conn[PODS] == OPEN && is_due(1) ->
      pod_becomes(1, truth[1]);
      if :: is_heard -> silent[PODS] = 0 :: else fi;
      all_is_well()
    }
  :: d_step { conn[ACCOUNTS] == OPEN && account_behind ->
      account_goes();
      silent[ACCOUNTS] = 0;
      all_is_well()
    }
#ifndef WITHOUT_WATCH_DEADLINE
  :: d_step { conn[PODS] == MUTED -> conn[PODS] = DOWN; happens("~ the watch of pods ends\n") }
  :: d_step { conn[ACCOUNTS] == MUTED -> conn[ACCOUNTS] = DOWN; happens("~ the watch of accounts ends\n") }
#endif
  :: d_step { conn[PODS] == DOWN && may_watch -> conn[PODS] = OPEN; happens("~ the watch of pods goes on\n") }
  :: d_step { conn[ACCOUNTS] == DOWN && may_watch -> conn[ACCOUNTS] = OPEN; happens("~ the watch of accounts goes on\n") }
  :: d_step { conn[PODS] == LOST && may_watch ->
      conn[PODS] = OPEN;
      happens("~ the pods are listed\n");
      relist_pod(0);
      relist_pod(1);
      silent[PODS] = 0;
      all_is_well()
    }
  :: d_step { conn[ACCOUNTS] == LOST && may_watch ->
      conn[ACCOUNTS] = OPEN;
      happens("~ the accounts are listed\n");
      if
      :: account == DELETED && accountView == THERE -> account_goes()
      :: account == DELETED && accountView == UNKNOWN -> skip
      :: else -> accountView = account
      fi;
      silent[ACCOUNTS] = 0;
      all_is_well()
    }
  od
}

/* All that is prompt has happened. */
#ifdef WITHOUT_WATCH_DEADLINE
#define is_over(k) true
#else
#define is_over(k) (conn[k] != MUTED)
#endif
/* Its last answer, and the turn after it. No time passes: an answer counts from when it comes. */
#define is_asking(a) (step[a] >= ASKING && step[a] <= CONFIRMED)
#define is_settled ( \
  is_over(PODS) && is_over(ACCOUNTS) && \
  !(conn[PODS] >= DOWN && may_watch) && !(conn[ACCOUNTS] >= DOWN && may_watch) && \
  !(conn[PODS] == OPEN && (is_due(0) || is_due(1))) && \
  !(conn[ACCOUNTS] == OPEN && account_behind && accountView == THERE) && \
  life[0] != CLOSING && life[1] != CLOSING && life[2] != CLOSING && life[3] != CLOSING && \
  !is_asking(0) && !is_asking(1) && !is_asking(2) && !is_asking(3))

#define is_watched(k) (!apiDown && conn[k] != MUTE)

#define age(a) aged[a] = (step[a] >= BOUND && step[a] <= DIALING)

proctype Clock() {
  do
  :: d_step { is_settled ->
      happens("~ two seconds pass\n");
      promise(7, !(longGone[0] && is_watched(PODS) && (is_open(0) || is_open(1))));
      promise(7, !(longGone[1] && is_watched(PODS) && (is_open(2) || is_open(3))));
      promise(7, !(accountLongGone && is_watched(ACCOUNTS) &&
        (is_open(0) || is_open(1) || is_open(2) || is_open(3))));
      longGone[0] = (truth[0] == GONE);
      longGone[1] = (truth[1] == GONE);
      accountLongGone = (account == DELETED);
      age(0);
      age(1);
      age(2);
      age(3);
      silent[PODS] = 1;
      silent[ACCOUNTS] = 1;
      distrusted[PODS] = 0;
      distrusted[ACCOUNTS] = 0;
      if :: conn[PODS] == MUTE -> conn[PODS] = MUTED :: else fi;
      if :: conn[ACCOUNTS] == MUTE -> conn[ACCOUNTS] = MUTED :: else fi;
      if
      :: conn[PODS] < DOWN && conn[ACCOUNTS] < DOWN -> stale = 0
      :: else -> stale = (stale < 2 -> stale + 1 : 2)
      fi;
      /* A bad verdict lives for two seconds. A good one, without a watch, for ten. */
#ifndef WITHOUT_NEGATIVE_TTL
      if :: cache[0] == BAD -> cache[0] = NONE :: else fi;
      if :: cache[1] == BAD -> cache[1] = NONE :: else fi;
#endif
#ifndef WITHOUT_SHRUNK_TTL
      if :: stale == 2 && cache[0] == GOOD -> cache[0] = NONE :: else fi;
      if :: stale == 2 && cache[1] == GOOD -> cache[1] = NONE :: else fi
#endif
    }
  od
}

inline reload(next) {
  policy = next;
  if
  :: next == UNLISTED ->
    happens("~ the policy lists the account no longer\n");
    /* The scope is watched no longer: its pods become unknown, and those that are gone stay gone. */
    conn[PODS] = LOST;
    conn[ACCOUNTS] = LOST;
    if :: view[0] != GONE -> view[0] = UNSEEN :: else fi;
    if :: view[1] != GONE -> view[1] = UNSEEN :: else fi;
    if :: accountView != DELETED -> accountView = UNKNOWN :: else fi;
#ifndef WITHOUT_POLICY_REVIEW
    revoke(0, E_POLICY);
    revoke(1, E_POLICY);
    revoke(2, E_POLICY);
    revoke(3, E_POLICY)
#endif
  :: next == OTHER_ROLE ->
    happens("~ the policy allows another role only\n");
    /* Those under way have no role yet: their last check covers it. */
#ifndef WITHOUT_POLICY_REVIEW
    revoke_admitted(0, E_POLICY);
    revoke_admitted(1, E_POLICY);
    revoke_admitted(2, E_POLICY);
    revoke_admitted(3, E_POLICY)
#endif
  :: else -> happens("~ the policy allows the workers\n")
  fi
}

inline drain_share(a) { if :: life[a] != 0 -> share[a] = 1 :: else fi }

#ifdef ONE_POD
#define two_pods false
#else
#define two_pods true
#endif

proctype World() {
  do
  :: d_step { truth[0] < ENDING && trouble -> truth[0] = GONE; happens("~ pod 0 goes\n") }
  :: d_step { two_pods && truth[1] < ENDING && trouble -> truth[1] = GONE; happens("~ pod 1 goes\n") }
  :: d_step { truth[0] == ENDING -> truth[0] = GONE; happens("~ pod 0 goes\n") }
  :: d_step { two_pods && truth[1] == ENDING -> truth[1] = GONE; happens("~ pod 1 goes\n") }
  :: d_step { truth[0] == LIVE && trouble -> truth[0] = ENDING; happens("~ pod 0 is being deleted\n") }
  :: d_step { two_pods && truth[1] == LIVE && trouble -> truth[1] = ENDING; happens("~ pod 1 is being deleted\n") }
  :: d_step { truth[0] == LIVE && trouble -> truth[0] = MOVED; happens("~ pod 0 loses its address\n") }
  :: d_step { two_pods && truth[1] == LIVE && trouble -> truth[1] = MOVED; happens("~ pod 1 loses its address\n") }
  :: d_step { account == THERE && trouble -> account = DELETED; happens("~ the account is deleted\n") }
  :: d_step { policy == ALLOWED && trouble -> reload(OTHER_ROLE); all_is_well() }
  :: d_step { policy == ALLOWED && trouble -> reload(UNLISTED); all_is_well() }
  :: d_step { policy != ALLOWED -> reload(ALLOWED) }
  :: d_step { !draining && trouble -> draining = 1; happens("~ the drain begins\n"); drain_share(0); drain_share(1); drain_share(2); drain_share(3) }
  :: d_step { !apiDown && trouble -> apiDown = 1; happens("~ the API server is away\n") }
  :: d_step { apiDown -> apiDown = 0; happens("~ the API server is back\n") }
  :: d_step { conn[PODS] == OPEN && trouble -> conn[PODS] = MUTE; happens("~ the watch of pods goes mute\n") }
  :: d_step { conn[PODS] == OPEN && trouble -> conn[PODS] = DOWN; happens("~ the watch of pods is cut\n") }
  :: d_step { conn[PODS] == OPEN && trouble -> conn[PODS] = LOST; happens("~ the watch of pods is cut, and its version is too old\n") }
  :: d_step { conn[ACCOUNTS] == OPEN && trouble -> conn[ACCOUNTS] = MUTE; happens("~ the watch of accounts goes mute\n") }
  :: d_step { conn[ACCOUNTS] == OPEN && trouble -> conn[ACCOUNTS] = DOWN; happens("~ the watch of accounts is cut\n") }
  :: d_step { conn[ACCOUNTS] == OPEN && trouble -> conn[ACCOUNTS] = LOST; happens("~ the watch of accounts is cut, and its version is too old\n") }
  od
}

init {
  atomic {
#ifdef OBSERVED
    c_code { atexit(print_observed); };
#endif
    view[0] = UNSEEN;
    run Worker(0);
    run Worker(1);
    run Api(0);
#ifndef ONE_POD
    run Worker(2);
    run Worker(3);
    run Api(1);
#endif
    run Watch();
    run Clock();
    run World()
  }
}

#ifdef LIVENESS
#define is_in(p) (is_open(2 * p) || is_open(2 * p + 1))
ltl gets_in { (<> [] (calm && truth[0] == LIVE && account == THERE)) -> ([] <> (is_in(0))) }
#endif
