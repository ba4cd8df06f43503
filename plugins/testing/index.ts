export { storeContract, type ContractOptions, type ContractTest, type OpenedStore, type OptionalMethod } from './contract/index.ts'
export { injectAs, type Injectable } from './inject-as.ts'
export { sessionData, sessionRecord } from './session.ts'
export { hostileStrings, malformedStrings, randomStrings } from './strings.ts'
