from collections.abc import Sequence
import numpy as np
from actprune.budget.choices import AGAIN, LEVELS, Choice, Item
from actprune_common.errors import InputError

def solve(items: Sequence[Item], *, budget=None, error=None, minimise="seconds", exact=None) -> Choice:
    from scipy.optimize import milp, LinearConstraint, Bounds
    from scipy.sparse import coo_matrix
    cols=[]; 
    for i,it in enumerate(items):
        for o,op in enumerate(it.options): cols.append((i,o,op.level,op.nbytes,op.seconds,op.error))
        if it.again:
            for l in ((0,) if not it.again.inputs else range(len(LEVELS))): cols.append((i,AGAIN,l,0,it.again.seconds,it.again.errors[l]))
    by={}
    for c,(i,o,l,*_) in enumerate(cols): by.setdefault(i,[]).append((c,l))
    R,C,V,lo,hi=[],[],[],[],[]; r=0
    for i,it in enumerate(items):
        for c,_ in by.get(i,()): R.append(r);C.append(c);V.append(1)
        lo.append(1 if it.needed else 0);hi.append(1);r+=1
    for c,(i,o,l,*_) in enumerate(cols):
        if o==AGAIN:
            for j in items[i].again.inputs:
                R.append(r);C.append(c);V.append(1)
                for d,m in by.get(j,()):
                    if m<=l: R.append(r);C.append(d);V.append(-1)
                lo.append(-np.inf);hi.append(0);r+=1
    nb=np.array([c[3] for c in cols],float); se=np.array([c[4] for c in cols]); er=np.array([c[5] for c in cols])
    for vec,lim in ((nb,budget),(er,error)):
        if lim is not None:
            for c in np.flatnonzero(vec): R.append(r);C.append(c);V.append(vec[c]/lim)
            lo.append(-np.inf);hi.append(1-1e-7);r+=1
    obj={"seconds":se,"nbytes":nb,"error":er}[minimise]; s=obj.max() or 1
    obj=obj/s+nb/(nb.sum() or 1)*1e-6
    A=coo_matrix((V,(R,C)),shape=(r,len(cols))).tocsr()
    res=milp(obj,constraints=LinearConstraint(A,lo,hi),integrality=np.ones(len(cols)),bounds=Bounds(0,1),options=dict(mip_rel_gap=0.01,time_limit=20))
    if res.x is None: raise InputError(f"budget: infeasible {res.message}")
    opt=[None]*len(items); lev=[0]*len(items)
    for c in np.flatnonzero(res.x>.5): opt[cols[c][0]]=cols[c][1]; lev[cols[c][0]]=cols[c][2]
    ch=[c for c in np.flatnonzero(res.x>.5)]
    return Choice(tuple(opt),tuple(lev),int(nb[ch].sum()),float(se[ch].sum()),float(er[ch].sum()),res.mip_dual_bound*s,res.mip_gap)
